//! Answers to the client: the head, and the body in the framing that the client understands.
//!
//! Bytes gather in one buffer of the worker and go out in as few writes as the moment allows: the
//! caller flushes when it would have to wait for more.

use http::{HeaderName, HeaderValue, Version};

use super::request::Persistence;

/// Whole header lines of `fields`, in pieces.
pub fn field_lines(fields: &[(HeaderName, HeaderValue)]) -> impl Iterator<Item = &[u8]> {
    fields.iter().flat_map(|(name, value)| {
        let line: [&[u8]; 4] = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        line
    })
}

/// How the end of an answer's body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseLength {
    /// No body follows, whatever the fields say: HEAD, 204, 304 (RFC 9110 section 6.4.1).
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks for HTTP/1.1 clients; for HTTP/1.0 clients the end of the connection.
    Unknown,
}

/// The framing on the wire, once the client's version is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyCoding {
    Plain,
    Chunked,
    UntilClose,
}

/// Room for pieces of an answer before it must be flushed. Measured: more makes large answers no
/// faster, and each worker has one.
const OUT_SIZE: usize = MAX_PIECE + 64;
/// The largest piece that is framed as one chunk; its size has four hexadecimal digits.
const MAX_PIECE: usize = 0x4000;
/// Bytes kept free before a chunk's data: four digits and CRLF.
const CHUNK_PREFIX: usize = 6;
/// Bytes kept free behind a chunk's data: CRLF.
const CHUNK_SUFFIX: usize = 2;

/// Bytes on their way to the client. Belongs to a worker, is reused for each answer.
#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    /// All initialised; `start..end` waits to be sent. Empty until the first answer.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl OutputBuffer {
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        if self.data.len() > OUT_SIZE {
            self.data = Vec::new();
        }
    }

    #[cold]
    fn reserve(&mut self, size: usize) {
        if self.data.is_empty() {
            // Zeroed by the allocator, as a rule without touching a page.
            self.data = vec![0; size.max(OUT_SIZE)];
        } else if self.data.len() < size {
            self.data.resize(size, 0);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.data.len() {
            self.reserve(end);
        }
        self.data[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Where the next piece of the body is to be written; `None` where a flush must come first.
    pub(crate) fn space(&mut self) -> Option<&mut [u8]> {
        if self.data.len() < OUT_SIZE {
            self.reserve(OUT_SIZE);
        }
        let room = self.data.len() - self.end;
        let piece = room
            .checked_sub(CHUNK_PREFIX + CHUNK_SUFFIX)?
            .min(MAX_PIECE);
        // A small rest is not worth a read of its own.
        if piece < MAX_PIECE / 4 && self.end > 0 {
            return None;
        }
        let from = self.end + CHUNK_PREFIX;
        Some(&mut self.data[from..from + piece])
    }

    /// Takes over `length` bytes that were written to [`Out::space`].
    pub(crate) fn commit(&mut self, length: usize, framing: BodyCoding) {
        let data = self.end + CHUNK_PREFIX;
        let prefix = match framing {
            BodyCoding::Chunked => format_chunk_size(length),
            BodyCoding::Plain | BodyCoding::UntilClose => ([0; CHUNK_PREFIX], 0),
        };
        let gap = CHUNK_PREFIX - prefix.1;
        self.data[data - prefix.1..data].copy_from_slice(&prefix.0[..prefix.1]);
        if self.start == self.end {
            // Nothing waits before this piece: leave the gap out instead of closing it.
            self.start += gap;
            self.end = data + length;
        } else {
            let from = self.end + gap;
            self.data.copy_within(from..data + length, self.end);
            self.end += prefix.1 + length;
        }
        if framing == BodyCoding::Chunked {
            self.append(b"\r\n");
        }
    }

    /// A piece that lies elsewhere, framed. For small ones: it is copied.
    pub(crate) fn append_piece(&mut self, bytes: &[u8], framing: BodyCoding) {
        for piece in bytes.chunks(MAX_PIECE) {
            if framing == BodyCoding::Chunked {
                let (prefix, length) = format_chunk_size(piece.len());
                self.append(&prefix[..length]);
                self.append(piece);
                self.append(b"\r\n");
            } else {
                self.append(piece);
            }
        }
    }

    pub(crate) fn append_last_chunk(&mut self) {
        self.append(b"0\r\n\r\n");
    }

    pub(crate) fn append_continue(&mut self) {
        self.append(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// RFC 9112 section 4. `fields` are pieces of whole field lines.
    pub(crate) fn append_head<'f>(
        &mut self,
        status: http::StatusCode,
        fields: impl Iterator<Item = &'f [u8]>,
        framing: BodyCoding,
        connection: (Version, Persistence),
    ) {
        self.append(b"HTTP/1.1 ");
        self.append(status.as_str().as_bytes());
        self.append(b" ");
        self.append(status.canonical_reason().unwrap_or_default().as_bytes());
        self.append(b"\r\n");
        fields.for_each(|piece| self.append(piece));
        if framing == BodyCoding::Chunked {
            self.append(b"transfer-encoding: chunked\r\n");
        }
        match connection {
            (_, Persistence::Close) => self.append(b"connection: close\r\n"),
            (Version::HTTP_10, Persistence::KeepAlive) => {
                self.append(b"connection: keep-alive\r\n");
            }
            (_, Persistence::KeepAlive) => {}
        }
        self.append(b"\r\n");
    }
}

/// The chunk-size line of a piece of at most [`MAX_PIECE`] bytes, and how long the line is.
fn format_chunk_size(size: usize) -> ([u8; CHUNK_PREFIX], usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (1..4)
        .rev()
        .find(|&digit| size >> (4 * digit) != 0)
        .unwrap_or(0)
        + 1;
    let mut line = [0; CHUNK_PREFIX];
    for (position, slot) in line[..digits].iter_mut().enumerate() {
        *slot = DIGITS[size >> (4 * (digits - 1 - position)) & 15];
    }
    line[digits..digits + 2].copy_from_slice(b"\r\n");
    (line, digits + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut OutputBuffer, bytes: &[u8], framing: BodyCoding) {
        out.space().expect("room")[..bytes.len()].copy_from_slice(bytes);
        out.commit(bytes.len(), framing);
    }

    #[test]
    fn chunk_sizes_have_no_leading_zeros() {
        for (size, line) in [
            (1, "1"),
            (15, "f"),
            (16, "10"),
            (0xabc, "abc"),
            (0x4000, "4000"),
        ] {
            let (bytes, length) = format_chunk_size(size);
            assert_eq!(&bytes[..length], format!("{line}\r\n").as_bytes());
        }
    }

    #[test]
    fn pieces_are_framed_the_same_whether_something_waits_before_them_or_not() {
        let mut out = OutputBuffer::default();
        put(&mut out, b"first", BodyCoding::Chunked);
        put(&mut out, &[b'x'; 17], BodyCoding::Chunked);
        out.append_piece(b"copied", BodyCoding::Chunked);
        out.append_last_chunk();
        let expected = format!(
            "5\r\nfirst\r\n11\r\n{}\r\n6\r\ncopied\r\n0\r\n\r\n",
            "x".repeat(17)
        );
        assert_eq!(out.pending(), expected.as_bytes());
    }

    #[test]
    fn plain_pieces_follow_a_head_without_a_gap() {
        let mut out = OutputBuffer::default();
        let status = http::StatusCode::OK;
        let connection = (Version::HTTP_11, Persistence::Close);
        out.append_head(status, std::iter::empty(), BodyCoding::Plain, connection);
        put(&mut out, b"body", BodyCoding::Plain);
        assert_eq!(
            out.pending(),
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbody"
        );
        out.clear();
        put(&mut out, b"next", BodyCoding::Plain);
        assert_eq!(out.pending(), b"next");
    }

    #[test]
    fn a_full_buffer_asks_for_a_flush() {
        let mut out = OutputBuffer::default();
        let mut pieces = 0;
        while let Some(space) = out.space() {
            let length = space.len();
            out.commit(length, BodyCoding::Chunked);
            pieces += 1;
            assert!(pieces < 10, "never full");
        }
        assert!(out.pending().len() > OUT_SIZE / 2);
        assert!(out.data.len() <= OUT_SIZE);
    }
}
