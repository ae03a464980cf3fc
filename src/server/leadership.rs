//! Which lane the calling thread leads, and at which of its connections it is.

use std::cell::Cell;
use std::net::TcpStream;
use std::sync::Arc;

use super::Handler;
use super::connection::Connection;
use super::event_loops::event_loop::Lane;
use super::workers::Pool;
use crate::net::socket::Turn;

/// A connection and its kit, for which there is no place.
pub(super) type NoPlace<H> = (Box<Connection>, Box<<H as Handler>::Kit>);

/// A thread's turn at leading. Belongs to one thread.
pub(super) struct LaneTurn<H: Handler> {
    pool: Arc<Pool<H>>,
    thread: usize,
    /// The lane's number.
    lane: Cell<Option<usize>>,
    /// The place in it of the connection that the thread works on.
    place: Cell<Option<usize>>,
}

impl<H: Handler> LaneTurn<H> {
    pub(super) fn new(pool: Arc<Pool<H>>, thread: usize) -> Self {
        LaneTurn {
            pool,
            thread,
            lane: Cell::new(None),
            place: Cell::new(None),
        }
    }

    /// The thread leads `lane` from now on.
    pub(super) fn take(&self, lane: usize) {
        self.lane.set(Some(lane));
        self.place.set(None);
    }

    fn led(&self) -> Option<&Lane<H>> {
        self.lane.get().map(|lane| &self.pool.lanes[lane])
    }

    /// The thread works on the connection in `place`.
    pub(super) fn enter(&self, place: usize) {
        self.place.set(Some(place));
    }

    /// The thread works on a connection that comes from elsewhere, if it leads a lane.
    pub(super) fn enter_lane_with(&self, client: &Arc<TcpStream>) {
        let Some(lane) = self.led() else { return };
        match lane.adopt_taken(client) {
            Ok(place) => self.place.set(Some(place)),
            Err(error) => {
                log::debug!("a connection is served outside the lanes: {error}");
                self.give_up();
            }
        }
    }

    /// The connection has no place in the lane any more.
    pub(super) fn leave_lane(&self) {
        if let (Some(lane), Some(place)) = (self.led(), self.place.take()) {
            lane.forget(place);
        }
    }

    /// The connection stays in its place and waits for its next request. It keeps `kit`, unless so
    /// many do that there would be more of them than requests that may be in flight.
    ///
    /// # Errors
    /// It has no place.
    pub(super) fn put_idle(
        &self,
        connection: Box<Connection>,
        kit: Box<H::Kit>,
    ) -> Result<Option<Box<H::Kit>>, NoPlace<H>> {
        let (Some(lane), Some(place)) = (self.led(), self.place.take()) else {
            return Err((connection, kit));
        };
        let has_room = self.pool.lanes.population() <= self.pool.shared.limits.workers;
        let (kept, spare) = if has_room {
            (Some(kit), None)
        } else {
            (None, Some(kit))
        };
        lane.put_idle(place, connection, kept);
        Ok(spare)
    }

    /// The connection stays in its place until the upstream has sent something.
    ///
    /// # Errors
    /// It has no place, or what it waits for cannot be watched.
    pub(super) fn put_waiting(
        &self,
        connection: Box<Connection>,
        kit: Box<H::Kit>,
        handler: &H,
    ) -> Result<(), NoPlace<H>> {
        let (Some(lane), Some(place)) = (self.led(), self.place.get()) else {
            return Err((connection, kit));
        };
        lane.put_waiting(place, connection, kit, handler)?;
        self.place.set(None);
        Ok(())
    }
}

impl<H: Handler> Turn for LaneTurn<H> {
    fn is_held(&self) -> bool {
        self.lane.get().is_some()
    }

    /// The lane gets another leader; the connection that the thread works on stays with it.
    fn give_up(&self) {
        let Some(lane) = self.lane.get() else { return };
        let client = self
            .place
            .take()
            .and_then(|place| self.pool.lanes[lane].forget(place));
        self.lane.set(None);
        self.pool.set_serving(self.thread, client);
        self.pool.give_lane(lane);
    }
}
