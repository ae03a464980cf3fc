//! Readiness of many sockets, awaited by one thread: a small face for epoll.
//!
//! Other systems than Linux have no lanes: their threads wait for one socket each.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Names a socket of a lane: the connection's place, and which side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(u64);

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Upstream,
    /// The clock: it has waited for long.
    Overdue,
}

/// Bits of a key for the place; the two below are for the side, those above for the generation.
const INDEX_BITS: u32 = 30;

impl Token {
    pub(crate) fn new(index: usize, generation: u32, side: Side) -> Token {
        debug_assert!(index < 1 << INDEX_BITS, "more places than descriptors");
        Token(u64::from(generation) << 32 | (index as u64) << 2 | side as u64)
    }

    pub(crate) fn index(self) -> usize {
        (self.0 >> 2) as usize & ((1 << INDEX_BITS) - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn side(self) -> Side {
        match self.0 & 3 {
            0 => Side::Client,
            1 => Side::Upstream,
            _ => Side::Overdue,
        }
    }
}

#[cfg(target_os = "linux")]
pub(crate) use epoll::Poller;

#[cfg(target_os = "linux")]
mod epoll {
    use super::{AsFd, Duration, Token, io};
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::Errno;

    use crate::net::wait;

    /// How many events one wait reports. More would let the first ones grow old.
    const AT_ONCE: usize = 64;

    pub(crate) struct Poller {
        epoll: OwnedFd,
        /// Ends a wait when it is written to.
        waker: OwnedFd,
    }

    /// No place has so high a number.
    const WOKEN: u64 = u64::MAX;

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&epoll, &waker, EventData::new_u64(WOKEN), flags)?;
            Ok(Poller { epoll, waker })
        }

        /// Reports `socket` whenever bytes arrive, or the end: edge-triggered, so that a connection
        /// that keeps busy costs no further call. What has been read before it is reported is not
        /// reported.
        pub(crate) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::add(
                &self.epoll,
                socket,
                EventData::new_u64(token.0),
                flags,
            )?)
        }

        /// Forgets `socket`. One that is not known is forgotten already.
        pub(crate) fn remove(&self, socket: impl AsFd) {
            if let Err(error) = epoll::delete(&self.epoll, socket) {
                log::debug!("a socket was not watched: {error}");
            }
        }

        /// Ends a wait, or the next one.
        pub(crate) fn wake(&self) {
            // Fails when it has been called 2^64 times.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }

        /// Puts the keys of the sockets that have something to read into `keys`; none after
        /// `timeout`.
        pub(crate) fn wait(
            &self,
            timeout: Option<Duration>,
            tokens: &mut Vec<Token>,
        ) -> io::Result<()> {
            tokens.clear();
            let timeout = timeout.map(wait::timespec);
            let mut events = [const { MaybeUninit::<Event>::uninit() }; AT_ONCE];
            let ready = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok((ready, _)) => ready,
                Err(Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let keys_of_sockets = ready.iter().filter_map(|event| {
                // Copied out: the field of a packed struct cannot be borrowed.
                let data = event.data;
                (data.u64() != WOKEN).then(|| Token(data.u64()))
            });
            tokens.extend(keys_of_sockets);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Poller;

#[cfg(not(target_os = "linux"))]
impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn add(&self, _: impl AsFd, _: Token) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn remove(&self, _: impl AsFd) {}

    pub(crate) fn wake(&self) {}

    pub(crate) fn wait(&self, _: Option<Duration>, _: &mut Vec<Token>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_place_generation_and_side() {
        for side in [Side::Client, Side::Upstream, Side::Overdue] {
            let token = Token::new(16_383, u32::MAX, side);
            assert_eq!(
                (token.index(), token.generation(), token.side()),
                (16_383, u32::MAX, side)
            );
        }
    }
}
