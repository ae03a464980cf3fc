//! HTTP/1.1 messages of both directions (RFC 9112): bytes in, decisions out, no I/O.

pub mod body;
pub mod encode;
pub mod error;
pub mod headers;
pub mod request;
pub mod response;
