//! Encodes responses to the client: the head, and the body in a framing that the client understands.
//!
//! The bytes collect in one buffer and go out in few writes: the caller sends them when the buffer is
//! full or when it would have to wait for more. No I/O. Called by the worker that serves the request.

use http::{HeaderName, HeaderValue, Version};

use super::request::Persistence;

/// Encodes `fields` as header lines (RFC 9112 section 5). The pieces, joined, are `name: value` and CRLF
/// for each.
pub fn field_lines(fields: &[(HeaderName, HeaderValue)]) -> impl Iterator<Item = &[u8]> {
    fields.iter().flat_map(|(name, value)| {
        let line: [&[u8]; 4] = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        line
    })
}

/// How the body is encoded for the version of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyCoding {
    /// The data as it is, with a Content-Length, or no body.
    Plain,
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
    /// The data as it is, ended by the end of the connection.
    UntilClose,
}

/// The usual size of the buffer, in bytes. Every worker has one, and a larger one makes large responses
/// no faster (measured).
const BUFFER_BYTES: usize = MAX_CHUNK_BYTES + 64;
/// The most data in one chunk, in bytes. Its size has four hexadecimal digits.
const MAX_CHUNK_BYTES: usize = 0x4000;
/// Bytes kept free before the data of a chunk: four digits and CRLF.
const CHUNK_PREFIX: usize = 6;
/// Bytes kept free after the data of a chunk: CRLF.
const CHUNK_SUFFIX: usize = 2;

/// Bytes to be sent to a client. Belongs to a worker, which reuses it for each response.
#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    /// Initialised memory, of which `start..end` has not been sent. Empty until the first response.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl OutputBuffer {
    /// Returns the bytes that have not been sent.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Drops all bytes, and the memory of a buffer that has grown.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        if self.data.len() > BUFFER_BYTES {
            self.data = Vec::new();
        }
    }

    /// Grows the buffer to at least `size` bytes.
    #[cold]
    fn reserve(&mut self, size: usize) {
        if self.data.is_empty() {
            // The allocator usually takes zeroed pages from the system, so no page is touched.
            self.data = vec![0; size.max(BUFFER_BYTES)];
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

    /// Returns the space for the next piece of the body, or `None` if the buffer must be sent first.
    pub(crate) fn space(&mut self) -> Option<&mut [u8]> {
        if self.data.len() < BUFFER_BYTES {
            self.reserve(BUFFER_BYTES);
        }
        let free = self.data.len() - self.end;
        let length = free
            .checked_sub(CHUNK_PREFIX + CHUNK_SUFFIX)?
            .min(MAX_CHUNK_BYTES);
        // A small space is not worth a read of its own.
        if length < MAX_CHUNK_BYTES / 4 && self.end > 0 {
            return None;
        }
        let from = self.end + CHUNK_PREFIX;
        Some(&mut self.data[from..from + length])
    }

    /// Adds the first `length` bytes of [`OutputBuffer::space`] to the body, encoded with `coding`.
    pub(crate) fn commit(&mut self, length: usize, coding: BodyCoding) {
        let data = self.end + CHUNK_PREFIX;
        let (prefix, prefix_length) = match coding {
            BodyCoding::Chunked => chunk_size_line(length),
            BodyCoding::Plain | BodyCoding::UntilClose => ([0; CHUNK_PREFIX], 0),
        };
        let gap = CHUNK_PREFIX - prefix_length;
        self.data[data - prefix_length..data].copy_from_slice(&prefix[..prefix_length]);
        if self.start == self.end {
            // The buffer is empty: start after the gap instead of moving the data.
            self.start += gap;
            self.end = data + length;
        } else {
            let from = self.end + gap;
            self.data.copy_within(from..data + length, self.end);
            self.end += prefix_length + length;
        }
        if coding == BodyCoding::Chunked {
            self.append(b"\r\n");
        }
    }

    /// Copies `bytes` to the body, encoded with `coding`. For small pieces.
    pub(crate) fn append_piece(&mut self, bytes: &[u8], coding: BodyCoding) {
        for piece in bytes.chunks(MAX_CHUNK_BYTES) {
            if coding == BodyCoding::Chunked {
                let (prefix, prefix_length) = chunk_size_line(piece.len());
                self.append(&prefix[..prefix_length]);
                self.append(piece);
                self.append(b"\r\n");
            } else {
                self.append(piece);
            }
        }
    }

    /// Ends a chunked body (RFC 9112 section 7.1).
    pub(crate) fn append_last_chunk(&mut self) {
        self.append(b"0\r\n\r\n");
    }

    /// Appends the interim response that asks for the request body (RFC 9110 section 15.2.1).
    pub(crate) fn append_continue(&mut self) {
        self.append(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Appends the head of a response (RFC 9112 section 4).
    ///
    /// `fields` are pieces of complete header lines, Content-Length included; Transfer-Encoding and
    /// Connection are added here. `connection` is the version of the request, and whether the
    /// connection is kept after the response.
    pub(crate) fn append_head<'f>(
        &mut self,
        status: http::StatusCode,
        fields: impl Iterator<Item = &'f [u8]>,
        coding: BodyCoding,
        connection: (Version, Persistence),
    ) {
        self.append(b"HTTP/1.1 ");
        self.append(status.as_str().as_bytes());
        self.append(b" ");
        self.append(status.canonical_reason().unwrap_or_default().as_bytes());
        self.append(b"\r\n");
        fields.for_each(|piece| self.append(piece));
        if coding == BodyCoding::Chunked {
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

/// Returns the line before a chunk of `size` bytes, at most [`MAX_CHUNK_BYTES`], and the line's length.
fn chunk_size_line(size: usize) -> ([u8; CHUNK_PREFIX], usize) {
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

    fn append_in_place(output: &mut OutputBuffer, bytes: &[u8], coding: BodyCoding) {
        output.space().expect("space")[..bytes.len()].copy_from_slice(bytes);
        output.commit(bytes.len(), coding);
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
            let (bytes, length) = chunk_size_line(size);
            assert_eq!(&bytes[..length], format!("{line}\r\n").as_bytes());
        }
    }

    #[test]
    fn chunks_are_the_same_in_an_empty_buffer_and_after_other_bytes() {
        let mut output = OutputBuffer::default();
        append_in_place(&mut output, b"first", BodyCoding::Chunked);
        append_in_place(&mut output, &[b'x'; 17], BodyCoding::Chunked);
        output.append_piece(b"copied", BodyCoding::Chunked);
        output.append_last_chunk();
        let expected = format!(
            "5\r\nfirst\r\n11\r\n{}\r\n6\r\ncopied\r\n0\r\n\r\n",
            "x".repeat(17)
        );
        assert_eq!(output.pending(), expected.as_bytes());
    }

    #[test]
    fn plain_data_follows_a_head_without_a_gap() {
        let mut output = OutputBuffer::default();
        let status = http::StatusCode::OK;
        let connection = (Version::HTTP_11, Persistence::Close);
        output.append_head(status, std::iter::empty(), BodyCoding::Plain, connection);
        append_in_place(&mut output, b"body", BodyCoding::Plain);
        assert_eq!(
            output.pending(),
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbody"
        );
        output.clear();
        append_in_place(&mut output, b"next", BodyCoding::Plain);
        assert_eq!(output.pending(), b"next");
    }

    #[test]
    fn a_full_buffer_has_no_space() {
        let mut output = OutputBuffer::default();
        let mut pieces = 0;
        while let Some(space) = output.space() {
            let length = space.len();
            output.commit(length, BodyCoding::Chunked);
            pieces += 1;
            assert!(pieces < 10, "never full");
        }
        assert!(output.pending().len() > BUFFER_BYTES / 2);
        assert!(output.data.len() <= BUFFER_BYTES);
    }
}
