//! A request on its way to the upstream: its head, and its body as it comes. Written into the buffer
//! of a transport, sent when that is full or the reader has to be waited for.

use std::io::Read;

use http::Method;
use ureq::unversioned::transport::{NextTimeout, Transport};

/// Room for a head that does not fit in the transport's buffer, in bytes, to begin with.
const LONG_HEAD: usize = 32 * 1024;

/// A request for the upstream.
pub struct Request<'a, F> {
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a [u8],
    /// Pieces of all field lines but those of the framing.
    pub fields: F,
    pub body: RequestBody<'a>,
}

/// The body of a request.
pub enum RequestBody<'a> {
    /// No body, and no Content-Length.
    None,
    /// All of it.
    Buffered(&'a [u8]),
    /// It comes from a reader. Without a length it goes out in chunks.
    Streamed {
        reader: &'a mut dyn Read,
        length: Option<u64>,
    },
}

/// Gathers what is sent in the transport's buffer.
pub(super) struct Output<'t> {
    transport: &'t mut dyn Transport,
    /// Bytes in the transport's buffer that are not sent yet.
    filled: usize,
    timeout: NextTimeout,
}

impl<'t> Output<'t> {
    /// `timeout`: how long the upstream may take nothing.
    pub(super) fn new(transport: &'t mut dyn Transport, timeout: NextTimeout) -> Output<'t> {
        Output {
            transport,
            filled: 0,
            timeout,
        }
    }

    /// Sends `request`.
    ///
    /// # Errors
    /// What the transport says, and the reader's of a streamed body.
    pub(super) fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
    ) -> Result<(), ureq::Error> {
        self.put_head(request)?;
        match &mut request.body {
            RequestBody::None => {}
            RequestBody::Buffered(bytes) => self.put(bytes)?,
            RequestBody::Streamed { reader, length } => self.stream(*reader, length.is_none())?,
        }
        self.flush()
    }

    fn put_head<'f>(
        &mut self,
        request: &Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
    ) -> Result<(), ureq::Error> {
        if let Some(length) = write_head(self.transport.buffers().output(), request) {
            self.filled = length;
            return Ok(());
        }
        let mut head = vec![0; LONG_HEAD];
        loop {
            if let Some(length) = write_head(&mut head, request) {
                return self.put(&head[..length]);
            }
            // What a client may send is limited, so this comes to an end soon.
            head.resize(2 * head.len(), 0);
        }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), ureq::Error> {
        while !bytes.is_empty() {
            let room = &mut self.transport.buffers().output()[self.filled..];
            let length = room.len().min(bytes.len());
            room[..length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if !bytes.is_empty() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Sends what the reader has, each piece when it is there.
    fn stream(&mut self, reader: &mut dyn Read, is_chunked: bool) -> Result<(), ureq::Error> {
        let (before, after) = if is_chunked { (6, 2) } else { (0, 0) };
        // The first piece goes out with the head, if that has left it room enough.
        if self.filled > self.transport.buffers().output().len() / 2 {
            self.flush()?;
        }
        loop {
            let room = &mut self.transport.buffers().output()[self.filled..];
            let end = room.len() - after;
            let length = reader
                .read(&mut room[before..end])
                .map_err(ureq::Error::Io)?;
            if length == 0 {
                break;
            }
            if is_chunked {
                // RFC 9112 section 7.1. A piece is shorter than the buffer, so four digits do.
                room[..before].copy_from_slice(format!("{length:04x}\r\n").as_bytes());
                room[before + length..][..after].copy_from_slice(b"\r\n");
            }
            self.filled += before + length + after;
            self.flush()?;
        }
        if is_chunked {
            self.put(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ureq::Error> {
        let filled = std::mem::take(&mut self.filled);
        if filled > 0 {
            self.transport.transmit_output(filled, self.timeout)?;
        }
        Ok(())
    }
}

/// Writes the head of `request` (RFC 9112 sections 3 and 6) to the start of `room`. Returns its
/// length in bytes; `None` where there is not room enough.
fn write_head<'f>(
    room: &mut [u8],
    request: &Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
) -> Option<usize> {
    let mut filled = 0;
    let mut put = |piece: &[u8]| {
        let end = filled + piece.len();
        room.get_mut(filled..end)?.copy_from_slice(piece);
        filled = end;
        Some(end)
    };
    put(request.method.as_str().as_bytes())?;
    put(b" ")?;
    put(request.target)?;
    put(b" HTTP/1.1\r\n")?;
    request
        .fields
        .clone()
        .try_for_each(|piece| put(piece).map(drop))?;
    let length = match &request.body {
        RequestBody::None => None,
        RequestBody::Buffered(bytes) => Some(bytes.len() as u64),
        RequestBody::Streamed { length, .. } => {
            if length.is_none() {
                put(b"transfer-encoding: chunked\r\n")?;
            }
            *length
        }
    };
    if let Some(length) = length {
        put(format!("content-length: {length}\r\n").as_bytes())?;
    }
    put(b"\r\n")
}
