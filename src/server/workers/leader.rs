//! Which lane the calling thread leads, and at which of its connections it is.

use std::cell::Cell;
use std::net::TcpStream;
use std::sync::Arc;

use super::pool::Workers;
use crate::net::wait::Leadership;
use crate::server::connection::Connection;
use crate::server::event_loops::event_loop::EventLoop;
use crate::server::handler::Handler;

/// A connection and its kit, for which there is no place.
pub(crate) type NoSlot<H> = (Box<Connection>, Box<<H as Handler>::Context>);

/// A thread's turn at leading. Belongs to one thread.
pub(crate) struct Leader<H: Handler> {
    workers: Arc<Workers<H>>,
    thread: usize,
    /// The lane's number.
    event_loop: Cell<Option<usize>>,
    /// The place in it of the connection that the thread works on.
    slot_index: Cell<Option<usize>>,
}

impl<H: Handler> Leader<H> {
    pub(crate) fn new(workers: Arc<Workers<H>>, thread: usize) -> Self {
        Leader {
            workers,
            thread,
            event_loop: Cell::new(None),
            slot_index: Cell::new(None),
        }
    }

    /// The thread leads `lane` from now on.
    pub(crate) fn take(&self, event_loop: usize) {
        self.event_loop.set(Some(event_loop));
        self.slot_index.set(None);
    }

    fn led(&self) -> Option<&EventLoop<H>> {
        self.event_loop
            .get()
            .map(|event_loop| &self.workers.event_loops[event_loop])
    }

    /// The thread works on the connection in `place`.
    pub(crate) fn enter(&self, slot_index: usize) {
        self.slot_index.set(Some(slot_index));
    }

    /// The thread works on a connection that comes from elsewhere, if it leads a lane.
    pub(crate) fn enter_lane_with(&self, client: &Arc<TcpStream>) {
        let Some(event_loop) = self.led() else { return };
        match event_loop.adopt_taken(client) {
            Ok(slot_index) => self.slot_index.set(Some(slot_index)),
            Err(error) => {
                log::debug!("a connection is served outside the lanes: {error}");
                self.hand_over();
            }
        }
    }

    /// The connection has no place in the lane any more.
    pub(crate) fn leave_lane(&self) {
        if let (Some(event_loop), Some(slot_index)) = (self.led(), self.slot_index.take()) {
            event_loop.forget(slot_index);
        }
    }

    /// The connection stays in its place and waits for its next request. It keeps `kit`, unless so
    /// many do that there would be more of them than requests that may be in flight.
    ///
    /// # Errors
    /// It has no place.
    pub(crate) fn put_idle(
        &self,
        connection: Box<Connection>,
        context: Box<H::Context>,
    ) -> Result<Option<Box<H::Context>>, NoSlot<H>> {
        let (Some(event_loop), Some(slot_index)) = (self.led(), self.slot_index.take()) else {
            return Err((connection, context));
        };
        let has_room =
            self.workers.event_loops.population() <= self.workers.admission.limits.workers;
        let (kept, spare) = if has_room {
            (Some(context), None)
        } else {
            (None, Some(context))
        };
        event_loop.put_idle(slot_index, connection, kept);
        Ok(spare)
    }

    /// The connection stays in its place until the upstream has sent something.
    ///
    /// # Errors
    /// It has no place, or what it waits for cannot be watched.
    pub(crate) fn put_waiting(
        &self,
        connection: Box<Connection>,
        context: Box<H::Context>,
        handler: &H,
    ) -> Result<(), NoSlot<H>> {
        let (Some(event_loop), Some(slot_index)) = (self.led(), self.slot_index.get()) else {
            return Err((connection, context));
        };
        event_loop.put_waiting(slot_index, connection, context, handler)?;
        self.slot_index.set(None);
        Ok(())
    }
}

impl<H: Handler> Leadership for Leader<H> {
    fn is_leading(&self) -> bool {
        self.event_loop.get().is_some()
    }

    /// The lane gets another leader; the connection that the thread works on stays with it.
    fn hand_over(&self) {
        let Some(event_loop) = self.event_loop.get() else {
            return;
        };
        let client = self
            .slot_index
            .take()
            .and_then(|slot_index| self.workers.event_loops[event_loop].forget(slot_index));
        self.event_loop.set(None);
        self.workers.set_serving(self.thread, client);
        self.workers.hand_over_loop(event_loop);
    }
}
