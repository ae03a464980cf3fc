//! Pieces of HTTP messages that many tests send, and bodies.

pub const MIB: usize = 1024 * 1024;
pub const KIB_PER_MIB: u64 = 1024;

/// The largest body that is held in memory, so that it can be sent again: 32 MiB.
pub const HELD_BODY_LIMIT_BYTES: usize = 32 * MIB;

/// A response that keeps the connection, with the body `ok`.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A response that keeps the connection, with an empty body.
pub const EMPTY_OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
pub const CHUNKED_HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
pub const SSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub const GET_REQUEST: &str = "GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The request line and Host of a POST, without its framing.
pub const POST_START: &str = "POST /v1/x HTTP/1.1\r\nHost: localhost\r\n";
pub const CHUNKED_POST_HEAD: &str =
    "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Writes the head of a POST with this Content-Length.
pub fn post_head(content_length: usize) -> String {
    format!("{POST_START}Content-Length: {content_length}\r\n\r\n")
}

/// Writes the same, for a client that waits for 100 before it sends the body.
pub fn expecting_post_head(content_length: usize) -> String {
    format!("{POST_START}Content-Length: {content_length}\r\nExpect: 100-continue\r\n\r\n")
}

/// Writes one chunk.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Writes `body` in chunked coding, in chunks of `chunk_bytes`, with the last chunk.
pub fn chunked(body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut coded = Vec::with_capacity(body.len() + body.len() / chunk_bytes * 8 + 16);
    for chunk in body.chunks(chunk_bytes) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

/// Makes bytes that repeat in no short period, so that a lost, doubled or swapped piece shows.
pub fn patterned_bytes(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
