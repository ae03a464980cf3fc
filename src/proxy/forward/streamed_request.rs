//! A request whose body is not held, because it is too large: it is sent while it comes, and once only.

use std::io::{self, Read};

use super::in_flight::Context;
use crate::proxy::error::ProxyError;
use crate::proxy::headers;
use crate::proxy::route::TargetSlice;
use crate::server::{ClientError, Exchange};
use crate::upstream::request::{Request, RequestBody};

/// Sends a request whose body still comes, `length` bytes of it where that is known, with the header
/// fields `own` that [`headers::for_upstream`] sets.
pub fn send_streamed(
    context: &mut Context,
    exchange: &mut Exchange<'_>,
    path: &TargetSlice,
    length: Option<u64>,
    own: headers::Own<'_>,
) -> Result<bool, ProxyError> {
    // A long computation, even where neither side makes it wait.
    let call = exchange.call();
    call.before_blocking();
    // The exchange itself is needed for reading the body.
    let path = path.of(&exchange.head.target).to_vec();
    let method = exchange.head.method.clone();
    let fields = std::mem::take(&mut exchange.head.fields);
    let mut reader = Streaming::new(context.body.bytes(), exchange);
    let request = Request {
        method: &method,
        target: &path,
        fields: headers::for_upstream(&fields, own),
        body: RequestBody::Streamed {
            reader: &mut reader,
            length,
        },
    };
    let sent = context.connection.send(request, call);
    match reader.error.take() {
        Some(error) => Err(ProxyError::Client(error)),
        None => sent.map_err(ProxyError::Upstream),
    }
}

/// Reads a streamed body: what is in the buffer already, then what the client still sends.
struct Streaming<'a, 'e> {
    buffered: &'a [u8],
    exchange: &'a mut Exchange<'e>,
    /// Why reading failed: an `io::Error` cannot carry it.
    error: Option<ClientError>,
}

impl<'a, 'e> Streaming<'a, 'e> {
    fn new(buffered: &'a [u8], exchange: &'a mut Exchange<'e>) -> Self {
        Streaming {
            buffered,
            exchange,
            error: None,
        }
    }
}

impl Read for Streaming<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.buffered.is_empty() {
            return self.buffered.read(buffer);
        }
        self.exchange.read_body(buffer).map_err(|error| {
            self.error = Some(error);
            io::Error::other("the request body broke off")
        })
    }
}
