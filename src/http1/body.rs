//! The framing of request bodies (RFC 9112 sections 6 and 7), and the chunks of answers. No I/O.

use super::error::HttpError;

/// How the end of a request's body is known: it never ends with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
}

/// The longest chunk-size line with its extensions, in bytes. Nobody sends extensions; a signature
/// or two would fit.
const MAX_CHUNK_LINE: usize = 1024;
/// The most bytes of chunk extensions in one body: otherwise a body could be nothing but overhead.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The longest trailer section, in bytes. It is read and dropped.
const MAX_TRAILERS: usize = 16 * 1024;
const TOO_MUCH: &str = "too many bytes of chunk extensions or trailers";
/// A chunk size has at most as many digits as a u64.
const MAX_SIZE_DIGITS: u32 = 16;

/// Decodes the chunked coding (RFC 9112 section 7.1), strictly, in whatever pieces it comes.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes of the line or section that is being read.
    line: usize,
    /// Bytes of extensions that may still come.
    extensions_left: usize,
    /// Whether white space may follow a chunk size.
    takes_padding: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u32,
    },
    /// White space behind a size.
    Padding {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLineFeed {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer field line, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// What a piece of input held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// All of it was framing; more is needed.
    More,
    /// `input[start..end]` is data, everything before it was framing. Ask again from `end`.
    Data { start: usize, end: usize },
    /// The body ends before `input[end]`.
    End { end: usize },
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        ChunkDecoder {
            state: State::Size {
                value: 0,
                digits: 0,
            },
            line: 0,
            extensions_left: MAX_EXTENSIONS,
            takes_padding: false,
        }
    }
}

impl ChunkDecoder {
    /// For the body of an answer, which nobody smuggles in. Extensions are limited on each line, but
    /// not in all: an upstream may sign every chunk. And white space may follow a size (RFC 9112
    /// section 7.1.1, "bad whitespace"): some servers pad their sizes.
    pub fn for_answer() -> ChunkDecoder {
        ChunkDecoder {
            extensions_left: usize::MAX,
            takes_padding: true,
            ..ChunkDecoder::default()
        }
    }

    /// Reads on in `input`, up to the next data or the end of the body.
    ///
    /// # Errors
    /// Anything that RFC 9112 section 7.1 does not allow, bare LF included, and framing overhead
    /// over the limits of this file. The decoder is of no use after an error.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, HttpError> {
        for (index, &byte) in input.iter().enumerate() {
            if let State::Data { left } = self.state {
                let here = u64::try_from(input.len() - index)
                    .unwrap_or(u64::MAX)
                    .min(left);
                // `here` is at most the length of a slice, so it fits.
                let end = index + here as usize;
                self.state = match left - here {
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
                // Sixteen hexadecimal digits fill a u64 and do not overflow it.
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(bad("an empty chunk size")),
            (State::Size { value, .. }, b';') => State::Extension { size: value },
            (State::Size { value: size, .. } | State::Padding { size }, b' ' | b'\t')
                if self.takes_padding =>
            {
                State::Padding { size }
            }
            (State::Padding { size }, b';') => State::Extension { size },
            (State::Padding { size }, b'\r') => State::SizeLineFeed { size },
            (State::Padding { .. }, _) => return Err(bad("a chunk size with something behind it")),
            (State::Size { value, .. }, b'\r') => State::SizeLineFeed { size: value },
            (State::Size { .. }, _) => return Err(bad("a chunk size that is not hexadecimal")),
            (State::Extension { size }, b'\r') => State::SizeLineFeed { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                let Some(left) = self.extensions_left.checked_sub(1) else {
                    return Err(bad(TOO_MUCH));
                };
                self.extensions_left = left;
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err(bad("a control character in an extension")),
            (State::SizeLineFeed { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLineFeed { size }, b'\n') => State::Data { left: size },
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

    /// Counts the byte that was just read against the limit of the line or section that it is in.
    fn count(&mut self) -> Result<(), HttpError> {
        self.line = match self.state {
            State::Data { .. } | State::DataCr | State::DataLf | State::Done => 0,
            State::Size { digits: 0, .. } => 0,
            _ => self.line + 1,
        };
        let limit = match self.state {
            State::Size { .. } | State::Padding { .. } | State::Extension { .. } => MAX_CHUNK_LINE,
            _ => MAX_TRAILERS,
        };
        if self.line > limit {
            return Err(bad(TOO_MUCH));
        }
        Ok(())
    }
}

/// RFC 9110 section 5.6.2: what a field name is made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bad(what: &'static str) -> HttpError {
    HttpError::bad_request(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and the index after it, fed in pieces of `size` bytes.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Option<usize>), HttpError> {
        let mut decoder = ChunkDecoder::default();
        let mut body = Vec::new();
        let mut done = 0;
        for piece in input.chunks(size) {
            let mut at = 0;
            loop {
                match decoder.decode(&piece[at..])? {
                    Decoded::More => break,
                    Decoded::Data { start, end } => {
                        body.extend_from_slice(&piece[at + start..at + end]);
                        at += end;
                    }
                    Decoded::End { end } => return Ok((body, Some(done + at + end))),
                }
            }
            done += piece.len();
        }
        Ok((body, None))
    }

    #[test]
    fn a_body_is_decoded_in_pieces_of_any_size() {
        let input =
            b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00A\r\n wide world\r\n0\r\nTrailer: x\r\n\r\nGET";
        // 00A is ten: " wide worl" and then "d" is one too many.
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
    fn every_prefix_of_a_body_is_not_yet_a_body() {
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
    fn whatever_two_decoders_could_read_in_two_ways_is_refused() {
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
    fn the_largest_size_is_only_a_number() {
        let (body, end) = decode(b"FFFFFFFFFFFFFFFF\r\nab", 64).unwrap();
        assert_eq!((body.as_slice(), end), (&b"ab"[..], None));
    }

    #[test]
    fn overhead_is_limited() {
        let endless = [b"1;".as_slice(), &[b'x'; MAX_CHUNK_LINE]].concat();
        assert!(decode(&endless, 512).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(500)).repeat(40);
        assert!(decode(many.as_bytes(), 512).is_err());
        let trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        assert!(decode(trailers.as_bytes(), 512).is_err());
        // A long body in small chunks is no overhead of this kind.
        let small = "1\r\na\r\n".repeat(100_000);
        assert_eq!(decode(small.as_bytes(), 4096).unwrap().0.len(), 100_000);
    }
}
