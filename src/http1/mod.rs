//! HTTP/1.1 messages of both directions: bytes in, decisions out.
//!
//! - [`request`], [`response`]: heads (RFC 9112 sections 3, 4, 6.3 and 9.3)
//! - [`headers`]: header lines (RFC 9110 sections 5 and 7.6.1)
//! - [`body`]: where bodies end, and their decoding (RFC 9112 sections 6 and 7)
//! - [`encode`]: responses to the client
//! - [`error`]: the error responses of this program (RFC 9110 section 15)
//!
//! Out of scope: sockets, routing, and what a header means to the proxy. Nothing here does I/O or
//! blocks, so any thread may call it. The parsers are fuzzed (`fuzz/`).

pub mod body;
pub mod encode;
pub mod error;
pub mod headers;
pub mod request;
pub mod response;
