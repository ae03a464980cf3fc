//! Sockets: the listening socket, reads and writes, waits, received bytes.
//!
//! Serves both sides, the clients' and the upstream's. Knows no HTTP, and nothing of the event loops:
//! those are in `server`. Called by the worker threads and the accept thread.

pub mod buffer;
pub mod clock;
pub mod listener;
pub mod socket;
pub mod wait;
