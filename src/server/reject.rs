//! The response to a request that the server rejects, whether or not its head could be read.
//!
//! Never waits. Called by the worker threads and the accept thread.

use std::sync::Arc;
use std::time::Instant;

use http::Method;

use super::connection::{CloseReason, Connection, ConnectionFate};
use super::handler::{Handler, RejectedRequest};
use crate::http1::encode::{BodyCoding, OutputBuffer, field_lines};
use crate::http1::error::HttpError;
use crate::http1::headers::KnownHeader;
use crate::http1::request::Persistence;
use crate::net::socket;

/// The part of a rejected request that could be read.
struct ReadablePart {
    method: Method,
    target: Box<[u8]>,
    id: Option<Box<[u8]>>,
    origin: Option<Box<[u8]>>,
}

/// Responds with `error` and ends the connection. `since` is when the first bytes of the request arrived.
#[inline(never)]
pub(super) fn reject<H: Handler>(
    connection: Box<Connection>,
    handler: &H,
    error: HttpError,
    since: Instant,
) -> ConnectionFate {
    let client = &connection.client;
    let part = match &connection.request {
        Some(pending) => {
            let head = &pending.head;
            let value = |header| head.fields.value(header).map(Box::from);
            ReadablePart {
                method: head.method.clone(),
                target: head.target.clone(),
                id: value(KnownHeader::XRequestId),
                origin: value(KnownHeader::Origin),
            }
        }
        None => readable_part(client.input.bytes()),
    };
    // RFC 9110 section 9.3.2: a response to HEAD has no content.
    let is_head = part.method == Method::HEAD;
    let response = handler.reject(&RejectedRequest {
        peer: Arc::clone(&client.peer),
        method: part.method,
        target: part.target,
        id: part.id,
        origin: part.origin,
        since,
        error: &error,
    });
    let mut output = OutputBuffer::default();
    output.append_head(
        error.status,
        field_lines(&response.fields),
        BodyCoding::Plain,
        (http::Version::HTTP_11, Persistence::Close),
    );
    if !is_head {
        output.append_piece(&response.body, BodyCoding::Plain);
    }
    // Unless the client does not read, the socket's buffer is empty and a short response fits.
    match socket::try_write(&client.socket, output.pending()) {
        Ok(_) => ConnectionFate::Drain(connection),
        Err(_) => ConnectionFate::Close(connection, CloseReason::SocketFailed),
    }
}

/// Reads what it can of a malformed or incomplete head. Method and target are `-` if either of them
/// cannot be read.
fn readable_part(bytes: &[u8]) -> ReadablePart {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next();
    let mut words = line.unwrap_or_default().splitn(3, |&byte| byte == b' ');
    let is_method = |word: &&[u8]| word.iter().all(u8::is_ascii_uppercase);
    let method = words.next().filter(is_method).unwrap_or_default();
    let target = words
        .next()
        .filter(|word| word.iter().all(u8::is_ascii_graphic));
    let (method, target) = match (Method::from_bytes(method), target) {
        (Ok(method), Some(target)) => (method, target.into()),
        _ => {
            let unknown = Method::from_bytes(b"-").unwrap_or_default();
            (unknown, Box::from(*b"-"))
        }
    };
    let value = |header| whole_value(bytes, header).map(Box::from);
    ReadablePart {
        method,
        target,
        id: value(KnownHeader::XRequestId),
        origin: value(KnownHeader::Origin),
    }
}

/// Returns the value of the first line of `header` that is whole.
fn whole_value(bytes: &[u8], header: KnownHeader) -> Option<&[u8]> {
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').skip(1);
    let mut header_lines = lines
        .map_while(|line| line.strip_suffix(b"\r\n"))
        .take_while(|line| !line.is_empty());
    header_lines.find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        (KnownHeader::of(name) == header).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_target_and_id_of_a_malformed_or_incomplete_head_are_read_where_possible() {
        for (head, method, target, id) in [
            ("", "-", "-", None),
            ("GET", "-", "-", None),
            ("get / HTTP/1.1\r\n", "-", "-", None),
            (
                "GET /x?y HTTP/9.9\r\nX-Request-ID: a b \r\n",
                "GET",
                "/x?y",
                Some("a b"),
            ),
            (
                "PUT /x HTTP/1.1\r\nA: b\r\nx-request-id:a:b\r\n\r\n",
                "PUT",
                "/x",
                Some("a:b"),
            ),
            ("GET / HTTP/1.1\r\nx-request-id: cut", "GET", "/", None),
            (
                "GET / HTTP/1.1\r\n\r\nx-request-id: of the body\r\n",
                "GET",
                "/",
                None,
            ),
            ("x-request-id: first line\r\n", "-", "-", None),
            ("\r\nGET /x HTTP/1.1\r\n", "GET", "/x", None),
            (
                "GET / HTTP/1.1\nA: b\n\nbody\r\nx-request-id: of the body\r\n",
                "GET",
                "/",
                None,
            ),
        ] {
            let part = readable_part(head.as_bytes());
            assert_eq!(part.method, method, "{head:?}");
            assert_eq!(*part.target, *target.as_bytes(), "{head:?}");
            assert_eq!(part.id.as_deref(), id.map(str::as_bytes), "{head:?}");
        }
    }
}
