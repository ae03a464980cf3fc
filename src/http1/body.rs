//! Where a body ends, and the reading of bodies of both directions (RFC 9112 sections 6 and 7). No I/O.

/// Where a body ends, as a head says (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body, whatever the header says.
    None,
    /// The body has this number of bytes.
    Known(u64),
    /// The body is a series of chunks, the last one empty.
    Chunked,
    /// The body of a response ends with the connection.
    UntilClose,
}

/// Decodes a body. Its state is the part that has not been decoded.
#[derive(Debug)]
pub enum BodyDecoder {
    /// This number of bytes. Not 0.
    Remaining(u64),
    /// More chunks, or the reason why the next one is malformed.
    Chunked(ChunkDecoder),
    /// Everything until the connection is closed.
    UntilClose,
    /// Nothing: the whole body has been decoded.
    Ended,
}

/// The longest chunk-size line with its extensions, in bytes. Extensions are rare; a signature fits.
const MAX_CHUNK_LINE: usize = 1024;
/// The most bytes of chunk extensions in a request body, so that a body cannot be endless overhead.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The longest trailer section, in bytes. Trailers are dropped.
const MAX_TRAILERS: usize = 16 * 1024;
const TOO_MUCH_OVERHEAD: &str = "too many bytes of chunk extensions or trailers";
/// The most digits of a chunk size: those of a u64.
const MAX_SIZE_DIGITS: u32 = 16;

/// A decoder of the chunked coding (RFC 9112 section 7.1). Takes its input in pieces of any size.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes read of the current chunk-size line or trailer section.
    line_bytes: usize,
    /// Bytes of extensions that the body may still have.
    extension_bytes_left: usize,
    /// Whether the body is a response's. See [`BodyDecoder::of_response`].
    is_response: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the chunk size, whose `value` is that of the digits so far.
    Size {
        value: u64,
        digits: u32,
    },
    /// In the white space after a size.
    Padding {
        size: u64,
    },
    /// In the extensions after a size.
    Extension {
        size: u64,
    },
    /// Before the LF of the chunk-size line.
    SizeLf {
        size: u64,
    },
    /// In the data of a chunk, with `left` bytes to come.
    Data {
        left: u64,
    },
    /// Before the CR after the data.
    DataCr,
    /// Before the LF after the data.
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// Before the LF of a trailer line.
    TrailerLf,
    /// Before the LF that ends the body.
    LastLf,
    Done,
    /// After an error, which comes again.
    Malformed(&'static str),
}

impl BodyDecoder {
    /// Returns a strict decoder for the body of a request. It drops the data before a malformed chunk, so
    /// that no more of the body is passed on.
    pub fn of_request(length: BodyLength) -> BodyDecoder {
        BodyDecoder::new(length, MAX_EXTENSIONS, false)
    }

    /// Returns a decoder for the body of a response, which cannot smuggle a request.
    ///
    /// Extensions are limited per line only: an upstream may sign every chunk. White space may follow
    /// a size (RFC 9112 section 7.1.1, "bad whitespace"): some servers pad their sizes. The data before a
    /// malformed chunk is returned first.
    pub fn of_response(length: BodyLength) -> BodyDecoder {
        BodyDecoder::new(length, usize::MAX, true)
    }

    fn new(length: BodyLength, extension_bytes_left: usize, is_response: bool) -> BodyDecoder {
        match length {
            BodyLength::None | BodyLength::Known(0) => BodyDecoder::Ended,
            BodyLength::Known(length) => BodyDecoder::Remaining(length),
            BodyLength::Chunked => BodyDecoder::Chunked(ChunkDecoder {
                state: State::Size {
                    value: 0,
                    digits: 0,
                },
                line_bytes: 0,
                extension_bytes_left,
                is_response,
            }),
            BodyLength::UntilClose => BodyDecoder::UntilClose,
        }
    }

    /// Decodes as much of `input` as fits in `buffer`. Returns the number of bytes used of `input`, and
    /// the number written to `buffer`. Both are 0 only if one of the two is empty or the body has ended.
    ///
    /// # Errors
    /// What is wrong with a chunk: anything that RFC 9112 section 7.1 does not allow, bare LF included, and
    /// framing overhead above the limits.
    pub fn decode(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
    ) -> Result<(usize, usize), &'static str> {
        if let BodyDecoder::Chunked(decoder) = self {
            let decoded = decoder.decode(input, buffer)?;
            if decoder.state == State::Done {
                *self = BodyDecoder::Ended;
            }
            return Ok(decoded);
        }
        let length = self.unframed(input.len().min(buffer.len()));
        buffer[..length].copy_from_slice(&input[..length]);
        self.advance(length);
        Ok((length, length))
    }

    /// Returns how many of the next `most` bytes are data, without framing in between. 0 in a chunked body.
    pub fn unframed(&self, most: usize) -> usize {
        match *self {
            BodyDecoder::Remaining(left) => at_most(left, most),
            BodyDecoder::UntilClose => most,
            BodyDecoder::Chunked(_) | BodyDecoder::Ended => 0,
        }
    }

    /// Counts `length` bytes, at most [`BodyDecoder::unframed`], that were not passed through
    /// [`BodyDecoder::decode`].
    pub fn advance(&mut self, length: usize) {
        if let BodyDecoder::Remaining(left) = self {
            *left -= length as u64;
            if *left == 0 {
                *self = BodyDecoder::Ended;
            }
        }
    }
}

impl ChunkDecoder {
    /// As [`BodyDecoder::decode`].
    fn decode(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), &'static str> {
        let (mut used, mut filled) = (0, 0);
        while used < input.len() && filled < buffer.len() {
            match self.state {
                State::Data { left } => {
                    let length = at_most(left, (input.len() - used).min(buffer.len() - filled));
                    buffer[filled..filled + length].copy_from_slice(&input[used..used + length]);
                    filled += length;
                    used += length;
                    self.state = match left - length as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                }
                State::Done => break,
                State::Malformed(reason) if filled == 0 || !self.is_response => return Err(reason),
                State::Malformed(_) => break,
                _ => match self.step(input[used]) {
                    Ok(()) => used += 1,
                    Err(reason) => self.state = State::Malformed(reason),
                },
            }
        }
        Ok((used, filled))
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err("a chunk size of more than 16 digits");
                }
                // 16 hexadecimal digits fill a u64 without overflow.
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err("an empty chunk size"),
            (State::Size { value, .. }, b';') => State::Extension { size: value },
            (State::Size { value: size, .. } | State::Padding { size }, b' ' | b'\t')
                if self.is_response =>
            {
                State::Padding { size }
            }
            (State::Padding { size }, b';') => State::Extension { size },
            (State::Padding { size }, b'\r') => State::SizeLf { size },
            (State::Padding { .. }, _) => return Err("a chunk size with something behind it"),
            (State::Size { value, .. }, b'\r') => State::SizeLf { size: value },
            (State::Size { .. }, _) => return Err("a chunk size that is not hexadecimal"),
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                let Some(left) = self.extension_bytes_left.checked_sub(1) else {
                    return Err(TOO_MUCH_OVERHEAD);
                };
                self.extension_bytes_left = left;
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err("a control character in an extension"),
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::DataCr | State::DataLf, _) => return Err("a chunk longer than its size"),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => State::TrailerValue,
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                return Err("a malformed trailer field");
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err("a chunk line that does not end with CRLF"),
        };
        self.count()
    }

    /// Counts the byte just read against the limit of its line or section.
    fn count(&mut self) -> Result<(), &'static str> {
        self.line_bytes = match self.state {
            State::Data { .. } | State::DataCr | State::DataLf | State::Done => 0,
            State::Size { digits: 0, .. } => 0,
            _ => self.line_bytes + 1,
        };
        let limit = match self.state {
            State::Size { .. } | State::Padding { .. } | State::Extension { .. } => MAX_CHUNK_LINE,
            _ => MAX_TRAILERS,
        };
        if self.line_bytes > limit {
            return Err(TOO_MUCH_OVERHEAD);
        }
        Ok(())
    }
}

/// Whether `byte` may be part of a field name (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns `left`, or `most` if that is less.
fn at_most(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

#[cfg(test)]
mod tests;
