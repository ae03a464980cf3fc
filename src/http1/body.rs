//! The framing of request bodies and the chunked coding of both directions (RFC 9112 sections 6 and 7).
//! No I/O.

use super::error::HttpError;

/// How the end of a request body is found (RFC 9112 section 6.3). It never ends with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    /// The request has no body.
    None,
    /// The body has this number of bytes.
    Length(u64),
    /// The body is a series of chunks, the last one empty.
    Chunked,
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

/// A strict decoder of the chunked coding (RFC 9112 section 7.1). Takes its input in pieces of any size.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes read of the current chunk-size line or trailer section.
    line_bytes: usize,
    /// Bytes of extensions that the body may still have.
    extension_bytes_left: usize,
    /// Whether white space may follow a chunk size.
    allows_padding: bool,
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
}

/// What [`ChunkDecoder::decode`] found in its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// Only framing. The decoder needs more input.
    More,
    /// `input[start..end]` is data, and everything before it is framing. Continue at `end`.
    Data { start: usize, end: usize },
    /// The body ends before `input[end]`.
    End { end: usize },
}

impl Default for ChunkDecoder {
    /// Returns a decoder for the body of a request.
    fn default() -> Self {
        ChunkDecoder {
            state: State::Size {
                value: 0,
                digits: 0,
            },
            line_bytes: 0,
            extension_bytes_left: MAX_EXTENSIONS,
            allows_padding: false,
        }
    }
}

impl ChunkDecoder {
    /// Returns a decoder for the body of a response, which cannot smuggle a request.
    ///
    /// Extensions are limited per line only: an upstream may sign every chunk. White space may follow
    /// a size (RFC 9112 section 7.1.1, "bad whitespace"): some servers pad their sizes.
    pub fn for_response() -> ChunkDecoder {
        ChunkDecoder {
            extension_bytes_left: usize::MAX,
            allows_padding: true,
            ..ChunkDecoder::default()
        }
    }

    /// Decodes `input` up to the end of the next data or of the body.
    ///
    /// # Errors
    /// `bad_request` for anything that RFC 9112 section 7.1 does not allow, bare LF included, and for
    /// framing overhead above the limits. The decoder cannot be used after an error.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, HttpError> {
        for (index, &byte) in input.iter().enumerate() {
            if let State::Data { left } = self.state {
                let available = u64::try_from(input.len() - index)
                    .unwrap_or(u64::MAX)
                    .min(left);
                // At most the length of a slice, so it fits in a usize.
                let end = index + available as usize;
                self.state = match left - available {
                    0 => State::DataCr,
                    left => State::Data { left },
                };
                return Ok(Decoded::Data { start: index, end });
            }
            self.step(byte)?;
            if self.state == State::Done {
                return Ok(Decoded::End { end: index + 1 });
            }
        }
        Ok(Decoded::More)
    }

    fn step(&mut self, byte: u8) -> Result<(), HttpError> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(bad("a chunk size of more than 16 digits"));
                }
                // 16 hexadecimal digits fill a u64 without overflow.
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(bad("an empty chunk size")),
            (State::Size { value, .. }, b';') => State::Extension { size: value },
            (State::Size { value: size, .. } | State::Padding { size }, b' ' | b'\t')
                if self.allows_padding =>
            {
                State::Padding { size }
            }
            (State::Padding { size }, b';') => State::Extension { size },
            (State::Padding { size }, b'\r') => State::SizeLf { size },
            (State::Padding { .. }, _) => return Err(bad("a chunk size with something behind it")),
            (State::Size { value, .. }, b'\r') => State::SizeLf { size: value },
            (State::Size { .. }, _) => return Err(bad("a chunk size that is not hexadecimal")),
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                let Some(left) = self.extension_bytes_left.checked_sub(1) else {
                    return Err(bad(TOO_MUCH_OVERHEAD));
                };
                self.extension_bytes_left = left;
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err(bad("a control character in an extension")),
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::DataCr | State::DataLf, _) => return Err(bad("a chunk longer than its size")),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => State::TrailerValue,
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                return Err(bad("a malformed trailer field"));
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(bad("a chunk line that does not end with CRLF")),
        };
        self.count()
    }

    /// Counts the byte just read against the limit of its line or section.
    fn count(&mut self) -> Result<(), HttpError> {
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
            return Err(bad(TOO_MUCH_OVERHEAD));
        }
        Ok(())
    }
}

/// Whether `byte` may be part of a field name (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bad(message: &'static str) -> HttpError {
    HttpError::bad_request(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces of `size` bytes. Returns the data, and the index after a complete body.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Option<usize>), HttpError> {
        let mut decoder = ChunkDecoder::default();
        let mut body = Vec::new();
        let mut decoded_bytes = 0;
        for piece in input.chunks(size) {
            let mut at = 0;
            loop {
                match decoder.decode(&piece[at..])? {
                    Decoded::More => break,
                    Decoded::Data { start, end } => {
                        body.extend_from_slice(&piece[at + start..at + end]);
                        at += end;
                    }
                    Decoded::End { end } => return Ok((body, Some(decoded_bytes + at + end))),
                }
            }
            decoded_bytes += piece.len();
        }
        Ok((body, None))
    }

    #[test]
    fn a_body_is_decoded_in_pieces_of_any_size() {
        let input =
            b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00A\r\n wide world\r\n0\r\nTrailer: x\r\n\r\nGET";
        // " wide world" has eleven bytes, one more than 00A.
        assert!(decode(input, input.len()).is_err());
        let input =
            b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00B\r\n wide world\r\n0\r\nTrailer: x\r\n\r\nGET";
        for size in 1..=input.len() {
            let (body, end) = decode(input, size).unwrap();
            assert_eq!(body, b"hello, wide world", "pieces of {size}");
            assert_eq!(end, Some(input.len() - 3));
        }
    }

    #[test]
    fn every_prefix_of_a_body_is_incomplete() {
        let input = b"3\r\nabc\r\n0\r\n\r\n";
        for length in 0..input.len() {
            assert_eq!(
                decode(&input[..length], 64).unwrap().1,
                None,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn ambiguous_and_malformed_chunks_are_rejected() {
        for input in [
            "\r\n",
            "x\r\n",
            "5 \r\nhello",
            " 5\r\n",
            "0x5\r\n",
            "-1\r\n",
            "+1\r\n",
            "5\nhello",
            "5\rhello",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\r\r",
            "5;a\nhello",
            "5;\0\r\n",
            "00000000000000001\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\nA: b\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nA\0: b\r\n",
            ";\r\n",
        ] {
            assert!(decode(input.as_bytes(), 64).is_err(), "{input:?}");
            assert!(
                decode(input.as_bytes(), 1).is_err(),
                "{input:?} byte by byte"
            );
        }
    }

    #[test]
    fn the_largest_chunk_size_is_accepted() {
        let (body, end) = decode(b"FFFFFFFFFFFFFFFF\r\nab", 64).unwrap();
        assert_eq!((body.as_slice(), end), (&b"ab"[..], None));
    }

    #[test]
    fn framing_overhead_is_limited() {
        let endless = [b"1;".as_slice(), &[b'x'; MAX_CHUNK_LINE]].concat();
        assert!(decode(&endless, 512).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(500)).repeat(40);
        assert!(decode(many.as_bytes(), 512).is_err());
        let trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        assert!(decode(trailers.as_bytes(), 512).is_err());
        // The data of small chunks does not count.
        let small = "1\r\na\r\n".repeat(100_000);
        assert_eq!(decode(small.as_bytes(), 4096).unwrap().0.len(), 100_000);
    }
}
