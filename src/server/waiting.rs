//! The connections that wait in the accept thread, without a worker: for a request, for the rest of a
//! head, or for the client to have read the last response.
//!
//! Owns their deadlines, and the choice of the one to close when there are too many. Does no I/O.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::connection::Connection;
use super::limits::{DRAIN_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, MAX_INCOMPLETE_HEAD_BYTES};

/// A connection that waits.
pub(super) struct WaitingConnection {
    pub(super) connection: Box<Connection>,
    pub(super) state: WaitState,
    /// When it is closed or rejected if nothing arrives.
    deadline: Instant,
    /// Since when it waits here.
    since: Instant,
    /// The last poll has seen that nothing had arrived on it.
    is_quiet: bool,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitState {
    /// Its next request.
    Idle,
    /// The rest of a head.
    ReadingHead,
    /// The client to have read the last response. What it still sends is dropped: closing a socket with
    /// unread bytes resets the connection, which can destroy the response (RFC 9112 section 9.6).
    Draining { drained: usize },
}

/// Which connection is closed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shed {
    /// The one that has waited longest: a draining one, else an idle one, else one in a head.
    Longest,
    /// The one whose head has been incomplete longest.
    ReadingHead,
}

/// All connections that wait in the accept thread.
#[derive(Default)]
pub(super) struct WaitingConnections {
    list: Vec<WaitingConnection>,
    /// Bytes of incomplete heads that they hold.
    head_bytes: usize,
}

impl WaitingConnection {
    /// When its request began: with the first byte of its head.
    pub(super) fn request_since(&self) -> Instant {
        self.connection.head_since.unwrap_or(self.since)
    }

    fn is_draining(&self) -> bool {
        matches!(self.state, WaitState::Draining { .. })
    }

    /// Its place in the order of closing, the smallest first. `None`: it must stay.
    fn shed_order(&self, which: Shed) -> Option<(u8, Instant)> {
        match (self.state, which) {
            (WaitState::ReadingHead, Shed::ReadingHead) => Some((0, self.request_since())),
            (_, Shed::ReadingHead) => None,
            (WaitState::Draining { .. }, Shed::Longest) => Some((0, self.since)),
            // Its request may have arrived already.
            _ if !self.is_quiet => None,
            (WaitState::Idle, Shed::Longest) => Some((1, self.since)),
            (WaitState::ReadingHead, Shed::Longest) => Some((2, self.request_since())),
        }
    }
}

impl WaitingConnections {
    /// Adds a connection that waits for its next request or the rest of a head.
    pub(super) fn add(&mut self, connection: Box<Connection>) {
        let since = Instant::now();
        let (state, deadline) = match connection.head_since {
            Some(started) => (WaitState::ReadingHead, started + HEAD_TIMEOUT),
            None => (WaitState::Idle, since + IDLE_TIMEOUT),
        };
        self.head_bytes += connection.client.input.bytes().len();
        self.list.push(WaitingConnection {
            connection,
            state,
            deadline,
            since,
            is_quiet: false,
        });
    }

    /// Adds a connection that is closed once the client has read the last response.
    pub(super) fn add_draining(&mut self, connection: Box<Connection>) {
        let since = Instant::now();
        self.list.push(WaitingConnection {
            connection,
            state: WaitState::Draining { drained: 0 },
            deadline: since + DRAIN_TIMEOUT,
            since,
            is_quiet: false,
        });
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut WaitingConnection {
        &mut self.list[index]
    }

    /// Takes a connection out. The last one moves to its index.
    pub(super) fn remove(&mut self, index: usize) -> WaitingConnection {
        let waiting = self.list.swap_remove(index);
        if !waiting.is_draining() {
            self.head_bytes -= waiting.connection.client.input.bytes().len();
        }
        waiting
    }

    /// Takes out one connection that is not draining, if there is one.
    pub(super) fn remove_not_draining(&mut self) -> Option<WaitingConnection> {
        let index = self
            .list
            .iter()
            .position(|waiting| !waiting.is_draining())?;
        Some(self.remove(index))
    }

    /// Takes out the connections whose deadline has passed.
    pub(super) fn remove_expired(&mut self, now: Instant) -> Vec<WaitingConnection> {
        let mut expired = Vec::new();
        let mut index = 0;
        while index < self.list.len() {
            if self.list[index].deadline > now {
                index += 1;
            } else {
                expired.push(self.remove(index));
            }
        }
        expired
    }

    /// Takes out the connection to close for another one, if there is one that may be closed.
    pub(super) fn remove_shed(&mut self, which: Shed) -> Option<WaitingConnection> {
        let candidates = self.list.iter().enumerate();
        let (_, index) = candidates
            .filter_map(|(index, waiting)| Some((waiting.shed_order(which)?, index)))
            .min()?;
        Some(self.remove(index))
    }

    /// Whether incomplete heads take more memory than they may.
    pub(super) fn has_too_many_head_bytes(&self) -> bool {
        self.head_bytes > MAX_INCOMPLETE_HEAD_BYTES
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().map(|waiting| waiting.deadline).min()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// What to poll for, in the order of the indices.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = self
            .list
            .iter()
            .map(|waiting| &waiting.connection.client.socket);
        sockets.map(|socket| PollFd::new(&**socket, PollFlags::IN))
    }

    /// Takes note of what the poll has reported. Returns the indices of the connections on which
    /// something has arrived, ascending.
    pub(super) fn set_events(&mut self, events: &[PollFlags]) -> Vec<usize> {
        let mut ready = Vec::new();
        for (index, (waiting, events)) in self.list.iter_mut().zip(events).enumerate() {
            waiting.is_quiet = events.is_empty();
            if !waiting.is_quiet {
                ready.push(index);
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::tests::{admission, connection};

    #[test]
    fn an_idle_connection_outlives_the_pools_of_clients() {
        let (connection, _client) = connection(&admission());
        let mut waiting = WaitingConnections::default();
        waiting.add(connection);
        let now = Instant::now();
        // Common pools keep an idle connection for 90 s.
        assert!(
            waiting
                .remove_expired(now + Duration::from_secs(95))
                .is_empty()
        );
        assert_eq!(
            waiting.remove_expired(now + Duration::from_secs(101)).len(),
            1
        );
    }
}
