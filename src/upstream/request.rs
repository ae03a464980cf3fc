//! Sends a request to the upstream: its head, and its body as it becomes available.
//!
//! Everything is written into the transport's output buffer, which is sent when it is full, after each
//! piece of a streamed body, and at the end.

use std::io::Read;

use http::Method;
use ureq::unversioned::transport::{NextTimeout, Transport};
use zeroize::{Zeroize, Zeroizing};

/// The initial size of a buffer for a head that does not fit in the transport's, in bytes.
const LONG_HEAD_BYTES: usize = 32 * 1024;

/// A request for the upstream.
pub struct Request<'a, F> {
    pub method: &'a Method,
    /// The request target in origin-form: path and query (RFC 9112 section 3.2.1).
    pub target: &'a [u8],
    /// Pieces of complete header lines, without Content-Length and Transfer-Encoding.
    pub fields: F,
    pub body: RequestBody<'a>,
}

/// The body of a request.
pub enum RequestBody<'a> {
    /// No body, and no Content-Length.
    None,
    /// The complete body.
    Buffered(&'a [u8]),
    /// The body comes from a reader.
    Streamed {
        reader: &'a mut dyn Read,
        /// The length in bytes. A body of unknown length is sent in chunks.
        length: Option<u64>,
    },
}

/// Writes a request to a transport, through the transport's output buffer.
pub(super) struct RequestWriter<'t> {
    transport: &'t mut dyn Transport,
    /// The number of bytes in the output buffer.
    filled: usize,
    /// How many of them are the head, which holds the token.
    head: usize,
    timeout: NextTimeout,
}

impl<'t> RequestWriter<'t> {
    /// `timeout` is the longest time in which the upstream accepts no byte.
    pub(super) fn new(transport: &'t mut dyn Transport, timeout: NextTimeout) -> RequestWriter<'t> {
        RequestWriter {
            transport,
            filled: 0,
            head: 0,
            timeout,
        }
    }

    /// Sends `request`.
    ///
    /// # Errors
    /// Those of the transport, and those of a streamed body's reader.
    pub(super) fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
    ) -> Result<(), ureq::Error> {
        self.write_head(request)?;
        match &mut request.body {
            RequestBody::None => {}
            RequestBody::Buffered(bytes) => self.write(bytes)?,
            RequestBody::Streamed { reader, length } => self.stream(*reader, length.is_none())?,
        }
        self.flush()
    }

    fn write_head<'f>(
        &mut self,
        request: &Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
    ) -> Result<(), ureq::Error> {
        if let Some(length) = encode_head(self.transport.buffers().output(), request) {
            self.filled = length;
            self.head = length;
            return Ok(());
        }
        let mut capacity = LONG_HEAD_BYTES;
        loop {
            let mut head = Zeroizing::new(vec![0; capacity]);
            if let Some(length) = encode_head(&mut head, request) {
                self.head = self.transport.buffers().output().len();
                return self.write(&head[..length]);
            }
            // A client's head is limited, so this ends soon.
            capacity *= 2;
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), ureq::Error> {
        while !bytes.is_empty() {
            let space = &mut self.transport.buffers().output()[self.filled..];
            let length = space.len().min(bytes.len());
            space[..length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if !bytes.is_empty() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Sends the body from `reader`, each piece as soon as it is read.
    fn stream(&mut self, reader: &mut dyn Read, is_chunked: bool) -> Result<(), ureq::Error> {
        // Bytes before and after the data of a chunk: four digits and CRLF, and CRLF.
        let (before, after) = if is_chunked { (6, 2) } else { (0, 0) };
        // The first piece goes out with the head, unless the head has filled half of the buffer.
        if self.filled > self.transport.buffers().output().len() / 2 {
            self.flush()?;
        }
        loop {
            let space = &mut self.transport.buffers().output()[self.filled..];
            let end = space.len() - after;
            let length = reader
                .read(&mut space[before..end])
                .map_err(ureq::Error::Io)?;
            if length == 0 {
                break;
            }
            if is_chunked {
                // RFC 9112 section 7.1. The buffer has 16 KiB, so four digits suffice.
                space[..before].copy_from_slice(format!("{length:04x}\r\n").as_bytes());
                space[before + length..][..after].copy_from_slice(b"\r\n");
            }
            self.filled += before + length + after;
            self.flush()?;
        }
        if is_chunked {
            self.write(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ureq::Error> {
        let filled = std::mem::take(&mut self.filled);
        let head = std::mem::take(&mut self.head);
        if filled == 0 {
            return Ok(());
        }
        let sent = self.transport.transmit_output(filled, self.timeout);
        // The buffer may outlive the credential.
        self.transport.buffers().output()[..head].zeroize();
        sent
    }
}

/// Writes the head of `request` (RFC 9112 sections 3 and 6) to the start of `buffer`. Returns its length
/// in bytes, or `None` if it does not fit.
fn encode_head<'f>(
    buffer: &mut [u8],
    request: &Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
) -> Option<usize> {
    let mut filled = 0;
    let mut append = |piece: &[u8]| {
        let end = filled + piece.len();
        buffer.get_mut(filled..end)?.copy_from_slice(piece);
        filled = end;
        Some(end)
    };
    append(request.method.as_str().as_bytes())?;
    append(b" ")?;
    append(request.target)?;
    append(b" HTTP/1.1\r\n")?;
    request
        .fields
        .clone()
        .try_for_each(|piece| append(piece).map(drop))?;
    let length = match &request.body {
        RequestBody::None => None,
        RequestBody::Buffered(bytes) => Some(bytes.len() as u64),
        RequestBody::Streamed { length, .. } => {
            if length.is_none() {
                append(b"transfer-encoding: chunked\r\n")?;
            }
            *length
        }
    };
    if let Some(length) = length {
        append(format!("content-length: {length}\r\n").as_bytes())?;
    }
    append(b"\r\n")
}
