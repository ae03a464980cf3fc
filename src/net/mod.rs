//! Sockets and waiting. Knows no HTTP.

pub mod buffer;
pub mod socket;
