//! The TCP transport: every wait for the upstream also watches the client.
//!
//! ureq's own TCP transport blocks in a read even if the client has disconnected meanwhile, so tokens
//! would be generated for a client that is gone. This one waits in [`crate::net::socket`], which ends
//! the wait when the client disconnects. It can also read without waiting, so that the pieces of a
//! response are collected while more are available.
//!
//! Implements ureq 3.5's `unversioned::transport`, which may change in a minor version.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

use super::buffers::TransportBuffers;
use super::call_state::{CallState, StopReason};
use super::connect::{connect_any, resolve};
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait::{WaitError, WaitOptions};

/// How long a read waits for the upstream alone before it watches the client too, which costs another
/// system call. Tokens usually come faster.
const UNWATCHED_WAIT: Duration = Duration::from_millis(100);

/// Makes TCP connections. Stops if the client disconnects.
#[derive(Debug)]
pub(super) struct TcpConnector {
    pub(super) call: Arc<CallState>,
}

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            // A connector before this one has connected, through a proxy.
            return Ok(chained.map(Either::A));
        }
        let transport = TcpTransport::connect(details.uri, details, &self.call)?;
        Ok(Some(Either::B(transport)))
    }
}

/// A TCP connection to the target or a proxy.
pub(super) struct TcpTransport {
    socket: Arc<TcpStream>,
    call: Arc<CallState>,
    buffers: TransportBuffers,
    read_timeout: ReadTimeout,
    /// Whether the last read took everything that had arrived.
    is_drained: bool,
    write_state: WriteState,
}

/// Whether the upstream accepts data. If it does not, the rest of the request is dropped: a response may
/// have arrived all the same, and the next read tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Open,
    /// A write failed.
    Closed,
    /// A write timed out. The response must have arrived already, so reads do not wait for its head.
    TimedOut,
}

impl TcpTransport {
    /// Connects to the host of `uri`, which is the target or a proxy.
    ///
    /// # Errors
    /// The name does not resolve, no address accepts, the timeout of `details` passes, or the client
    /// disconnects.
    pub(super) fn connect(
        uri: &Uri,
        details: &ConnectionDetails,
        call: &Arc<CallState>,
    ) -> Result<TcpTransport, ureq::Error> {
        let deadline = Instant::now() + duration(details.timeout);
        let addresses = resolve(uri, deadline, call)?;
        let socket = Arc::new(connect_any(&addresses, deadline, call)?);
        call.set_upstream(Arc::downgrade(&socket));
        let config = details.config;
        Ok(TcpTransport {
            call: Arc::clone(call),
            buffers: TransportBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            read_timeout: ReadTimeout::set(&socket, UNWATCHED_WAIT).map_err(ureq::Error::Io)?,
            socket,
            is_drained: false,
            write_state: WriteState::Open,
        })
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // After a failed write rustls tries to write the same record again.
        match self.call.stop_reason() {
            StopReason::None if self.write_state != WriteState::Open => return Ok(()),
            StopReason::None => {}
            StopReason::TimedOut => return Err(self.call.stop(WaitError::TimedOut)),
            StopReason::ClientClosed => return Err(self.call.stop(WaitError::ClientClosed)),
        }
        let stall = duration(timeout.for_write());
        let bytes = &self.buffers.output[..amount];
        match socket::write_all(&self.socket, bytes, stall, &|| self.call.client()) {
            Ok(()) => {
                self.call.set_sent();
                Ok(())
            }
            // An upstream that rejects a body early closes its receiving side. Its response counts; if
            // there is none, the next read fails.
            Err(WaitError::Io(_)) => {
                self.write_state = WriteState::Closed;
                Ok(())
            }
            // The upstream has stopped reading, but it has sent something or closed.
            Err(WaitError::TimedOut) if !socket::is_idle_and_open(&self.socket) => {
                self.write_state = WriteState::TimedOut;
                Ok(())
            }
            Err(error) => Err(self.call.stop(error)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let TcpTransport {
            socket,
            call,
            buffers,
            read_timeout,
            is_drained,
            write_state,
        } = self;
        let space = buffers.space()?;
        let capacity = space.len();
        let received = if call.is_non_blocking() {
            // A read that did not fill its buffer has drained the socket.
            if std::mem::replace(is_drained, false) || call.must_pass_on() {
                return Err(ureq::Error::Io(io::ErrorKind::WouldBlock.into()));
            }
            match socket::try_read(socket, space) {
                Ok(Some(length)) => Ok(length),
                Ok(None) => return Err(ureq::Error::Io(io::ErrorKind::WouldBlock.into())),
                Err(error) => Err(WaitError::Io(error)),
            }
        } else {
            let timeout = match write_state {
                WriteState::TimedOut if !call.is_head_received() => Duration::ZERO,
                _ => duration(timeout.for_read()),
            };
            let options = WaitOptions {
                timeout,
                watched: &|| call.client(),
            };
            socket::read(socket, space, *read_timeout, options)
        };
        let length = received.map_err(|error| call.stop(error))?;
        call.count_read(length)?;
        *is_drained = length > 0 && length < capacity;
        buffers.input_appended(length);
        Ok(length > 0)
    }

    fn is_open(&mut self) -> bool {
        self.write_state == WriteState::Open && socket::is_idle_and_open(&self.socket)
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TcpTransport")
            .field("socket", &self.socket)
            .finish()
    }
}

/// Returns the timeout as a duration.
fn duration(timeout: NextTimeout) -> Duration {
    /// Replaces "no timeout": a year, which no clock overflows.
    const MAX: Duration = Duration::from_secs(365 * 24 * 3600);
    (*timeout.after).min(MAX)
}

/// Returns no addresses. ureq resolves before it connects, without watching the client, so the names are
/// resolved in [`TcpTransport::connect`] instead.
#[derive(Debug)]
pub(super) struct DeferredResolver;

impl Resolver for DeferredResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
