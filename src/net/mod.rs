//! Sockets and waiting. Knows no HTTP.

pub mod buffer;
pub mod listener;
pub mod socket;
pub mod wait;
