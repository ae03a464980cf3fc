//! The request's body on its way up: held, so that it can be sent again, or streamed.

use std::io::{self, Read};

use crate::http1::body::RequestFraming;
use crate::server::{ClientError, Exchange};

/// Bodies up to this size are held in memory. Most prompts are far smaller; images are larger.
const MAX_HELD: usize = 2 << 20;
/// What a body's buffer grows by at first, in bytes; then it doubles.
const FIRST_STEP: usize = 16 * 1024;
/// The most it grows by: nothing is allocated from a declared length.
const MAX_STEP: usize = 256 * 1024;
/// A buffer up to this size is kept for the next request.
const KEPT: usize = 64 * 1024;

/// What was read before the request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    /// All of it is in the buffer.
    Held,
    /// The rest of it is still to come; its length where it was declared.
    Streamed(Option<u64>),
}

/// Reads the body into `buffer` as far as it is to be held.
///
/// # Errors
/// The client's error.
pub fn buffer_body(exchange: &mut Exchange<'_>, buffer: &mut Vec<u8>) -> Result<Body, ClientError> {
    buffer.clear();
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    }
    let mut declared = usize::MAX;
    match exchange.head.framing {
        RequestFraming::None => return Ok(Body::None),
        RequestFraming::Length(length) if length > MAX_HELD as u64 => {
            exchange.admit_body()?;
            return Ok(Body::Streamed(Some(length)));
        }
        // It bounds what is allocated, but is not the reason for allocating it.
        RequestFraming::Length(length) => declared = length as usize,
        RequestFraming::Chunked => {}
    }
    let mut filled = 0;
    let held = loop {
        if filled == buffer.len() {
            let left = declared.saturating_sub(filled).max(1);
            let step = filled.clamp(FIRST_STEP, MAX_STEP).min(left);
            buffer.resize(filled + step, 0);
        }
        match exchange.read_body(&mut buffer[filled..])? {
            0 => break Body::Held,
            length => filled += length,
        }
        if filled > MAX_HELD {
            break Body::Streamed(None);
        }
    };
    buffer.truncate(filled);
    Ok(held)
}

/// Reads a streamed body: what is in the buffer already, then what the client still sends.
pub struct Streaming<'a, 'e> {
    buffered: &'a [u8],
    exchange: &'a mut Exchange<'e>,
    /// Why reading failed: the error that goes through the HTTP client cannot carry it.
    pub error: Option<ClientError>,
}

impl<'a, 'e> Streaming<'a, 'e> {
    pub fn new(buffered: &'a [u8], exchange: &'a mut Exchange<'e>) -> Self {
        Streaming {
            buffered,
            exchange,
            error: None,
        }
    }
}

impl Read for Streaming<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.buffered.is_empty() {
            return self.buffered.read(buffer);
        }
        self.exchange.read_body(buffer).map_err(|error| {
            self.error = Some(error);
            io::Error::other("the request body broke off")
        })
    }
}
