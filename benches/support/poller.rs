//! A thin wrapper around epoll: readiness of many sockets in one thread, level-triggered.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// The most ready sockets that one wait reports.
const AT_ONCE: usize = 256;

/// The set of watched sockets. A clone lets another thread add to it.
#[derive(Clone)]
pub struct Registry(Arc<OwnedFd>);

impl Registry {
    /// Wakes the poller with `key` when `socket` can be read or was closed.
    pub fn add(&self, socket: &impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(
            &*self.0,
            socket,
            EventData::new_u64(key),
            EventFlags::IN,
        )?)
    }

    /// Waits for room to write instead of bytes to read.
    pub fn await_room(&self, socket: &impl AsFd, key: u64) -> io::Result<()> {
        self.modify(socket, key, EventFlags::OUT)
    }

    /// Undoes `await_room`.
    pub fn await_bytes(&self, socket: &impl AsFd, key: u64) -> io::Result<()> {
        self.modify(socket, key, EventFlags::IN)
    }

    fn modify(&self, socket: &impl AsFd, key: u64, what: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &*self.0,
            socket,
            EventData::new_u64(key),
            what,
        )?)
    }
}

pub struct Poller {
    registry: Registry,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            registry: Registry(Arc::new(fd)),
        })
    }

    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Puts the keys of the ready sockets into `keys`; no keys after `timeout` (`None`: no timeout).
    pub fn wait(&self, timeout: Option<Duration>, keys: &mut Vec<u64>) -> io::Result<()> {
        keys.clear();
        let epoll_fd = &*self.registry.0;
        if let Some(timeout) = timeout {
            // epoll_wait counts in milliseconds; poll on the epoll descriptor in nanoseconds.
            let limit = Timespec {
                tv_sec: timeout.as_secs() as i64,
                tv_nsec: timeout.subsec_nanos().into(),
            };
            let mut one = [PollFd::new(epoll_fd, PollFlags::IN)];
            match rustix::event::poll(&mut one, Some(&limit)) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut events = [const { MaybeUninit::<Event>::uninit() }; AT_ONCE];
        let ready = match epoll::wait(epoll_fd, &mut events, None) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        keys.extend(ready.iter().map(|event| {
            // Copied, since a field of a packed struct cannot be borrowed.
            let data = event.data;
            data.u64()
        }));
        Ok(())
    }
}
