//! Waiting for many sockets at once: a small interface to epoll.
//!
//! Only Linux has it. On other systems there are no event loops, and each thread waits for one socket.
//! Called by the leader of an event loop; [`Poller::add`] and [`Poller::wake`] by all threads.

#[cfg(target_os = "linux")]
pub(super) use self::epoll::Poller;
#[cfg(not(target_os = "linux"))]
pub(super) use self::unsupported::Poller;

#[cfg(target_os = "linux")]
mod epoll {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::Errno;

    use crate::net::wait;
    use crate::server::event_loops::token::Token;

    /// How many events one wait reports. With more of them the last ones would be handled late.
    const MAX_EVENTS: usize = 64;

    /// The token of the waker. No slot has an index this large.
    const WAKER: u64 = u64::MAX;

    pub(crate) struct Poller {
        epoll: OwnedFd,
        /// A write to it ends a wait.
        waker: OwnedFd,
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&epoll, &waker, EventData::new_u64(WAKER), flags)?;
            Ok(Poller { epoll, waker })
        }

        /// Watches `socket`: reports it whenever bytes or the end of the stream arrive. Edge-triggered,
        /// so that a busy connection needs no further call; bytes that stay unread are not reported again.
        ///
        /// # Errors
        /// The error of the operating system: no memory, or too many watches.
        pub(crate) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::add(
                &self.epoll,
                socket,
                EventData::new_u64(token.0),
                flags,
            )?)
        }

        /// Stops watching `socket`. Does nothing if it is not watched.
        pub(crate) fn remove(&self, socket: impl AsFd) {
            if let Err(error) = epoll::delete(&self.epoll, socket) {
                log::debug!("a socket was not watched: {error}");
            }
        }

        /// Ends the current wait, or the next one.
        pub(crate) fn wake(&self) {
            // Fails only if the counter is full, which ends a wait as well.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }

        /// Waits, and replaces `tokens` by those of the sockets with something to read; by none after
        /// `timeout`.
        ///
        /// # Errors
        /// The error of the operating system.
        pub(crate) fn wait(
            &self,
            timeout: Option<Duration>,
            tokens: &mut Vec<Token>,
        ) -> io::Result<()> {
            tokens.clear();
            let timeout = timeout.map(wait::timespec);
            let mut events = [const { MaybeUninit::<Event>::uninit() }; MAX_EVENTS];
            let ready = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok((ready, _)) => ready,
                Err(Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let sockets = ready.iter().filter_map(|event| {
                // A copy: the field of a packed struct cannot be borrowed.
                let data = event.data;
                (data.u64() != WAKER).then(|| Token(data.u64()))
            });
            tokens.extend(sockets);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod unsupported {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use crate::server::event_loops::token::Token;

    /// Cannot be made.
    pub(crate) struct Poller;

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
}
