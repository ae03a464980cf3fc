//! A thread's leadership: which event loop it leads, and which of its connections it works on.
//!
//! Called by the thread itself: by its [`worker`](super::worker), and through [`Leadership`] by all code
//! that is about to block.

use std::cell::Cell;
use std::net::TcpStream;
use std::sync::Arc;

use super::pool::{Task, Workers};
use crate::net::wait::Leadership;
use crate::server::connection::Connection;
use crate::server::event_loops::event_loop::{EventLoop, NoSlot};
use crate::server::handler::Handler;

/// The leadership of one thread.
pub(super) struct Leader<H: Handler> {
    workers: Arc<Workers<H>>,
    thread: usize,
    /// The index of the event loop that the thread leads.
    event_loop: Cell<Option<usize>>,
    /// The slot there of the connection that the thread works on.
    slot: Cell<Option<usize>>,
}

impl<H: Handler> Leader<H> {
    pub(super) fn new(workers: Arc<Workers<H>>, thread: usize) -> Self {
        Leader {
            workers,
            thread,
            event_loop: Cell::new(None),
            slot: Cell::new(None),
        }
    }

    /// Makes the thread the leader of an event loop.
    pub(super) fn lead(&self, event_loop: usize) {
        self.event_loop.set(Some(event_loop));
        self.slot.set(None);
    }

    fn event_loop(&self) -> Option<&EventLoop<H>> {
        let index = self.event_loop.get()?;
        Some(&self.workers.event_loops[index])
    }

    /// Records that the thread works on the connection in `slot`.
    pub(super) fn set_slot(&self, slot: usize) {
        self.slot.set(Some(slot));
    }

    /// Gives a connection from elsewhere, which the thread works on, a slot. Does nothing if the thread
    /// leads no event loop; hands it over if it cannot watch the socket.
    pub(super) fn take_slot(&self, client: &Arc<TcpStream>) {
        let Some(event_loop) = self.event_loop() else {
            return;
        };
        match event_loop.add_busy(client) {
            Ok(slot) => self.slot.set(Some(slot)),
            Err(error) => {
                log::debug!("a connection is served outside the event loops: {error}");
                self.hand_over();
            }
        }
    }

    /// Frees the slot of the connection that the thread works on.
    pub(super) fn free_slot(&self) {
        if let (Some(event_loop), Some(slot)) = (self.event_loop(), self.slot.take()) {
            event_loop.remove(slot);
        }
    }

    /// Leaves the connection in its slot, where it waits for its next request. It keeps its context unless
    /// the event loops have more connections than there are permits. Returns a context that is not kept.
    ///
    /// # Errors
    /// It has no slot.
    pub(super) fn put_idle(
        &self,
        connection: Box<Connection>,
        context: Box<H::Context>,
    ) -> Result<Option<Box<H::Context>>, NoSlot<H>> {
        let (Some(event_loop), Some(slot)) = (self.event_loop(), self.slot.take()) else {
            return Err((connection, context));
        };
        let permits = self.workers.admission.limits.workers;
        let (kept, spare) = if self.workers.event_loops.connections() <= permits {
            (Some(context), None)
        } else {
            (None, Some(context))
        };
        event_loop.put_idle(slot, connection, kept);
        Ok(spare)
    }

    /// Leaves the connection in its slot, where its request waits for the upstream.
    ///
    /// # Errors
    /// It has no slot, or its upstream connection cannot be watched.
    pub(super) fn put_awaiting_upstream(
        &self,
        connection: Box<Connection>,
        context: Box<H::Context>,
        handler: &H,
    ) -> Result<(), NoSlot<H>> {
        let (Some(event_loop), Some(slot)) = (self.event_loop(), self.slot.get()) else {
            return Err((connection, context));
        };
        event_loop.put_awaiting_upstream(slot, connection, context, handler)?;
        self.slot.set(None);
        Ok(())
    }
}

impl<H: Handler> Leadership for Leader<H> {
    fn is_leading(&self) -> bool {
        self.event_loop.get().is_some()
    }

    /// Hands the event loop to another thread. The connection that this thread works on leaves its slot
    /// and stays with the thread.
    fn hand_over(&self) {
        let Some(index) = self.event_loop.get() else {
            return;
        };
        let event_loop = &self.workers.event_loops[index];
        let client = self.slot.take().and_then(|slot| event_loop.remove(slot));
        self.event_loop.set(None);
        self.workers.set_serving(self.thread, client);
        self.workers.schedule(Task::Lead(index));
    }
}
