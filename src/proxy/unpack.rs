//! Unpacks compressed bodies on the side, piece by piece, so far as they are looked at. No I/O.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::http1::headers::{HeaderBlock, KnownHeader};

/// The most of an unpacked body that is looked at, in bytes: it bounds memory and time, whatever a small
/// body expands to.
const MAX_UNPACKED: usize = 64 * 1024;

/// The most of a packed body that is looked at, in bytes: empty members of a gzip body would take time
/// without end. No coding of use makes a text twice as long.
const MAX_PACKED: usize = 2 * MAX_UNPACKED;

/// A body in a content coding that can be read.
pub struct Unpacker {
    decoder: Decoder,
    /// Bytes of the packed body that are still looked at.
    packed_left: usize,
    /// Nothing more comes: a limit is reached, or the body is malformed.
    is_ended: bool,
}

enum Decoder {
    /// Deflate whose first byte has not come.
    Deflate,
    Zlib(ZlibDecoder<Output>),
    Raw(DeflateDecoder<Output>),
    Gzip(MultiGzDecoder<Output>),
}

/// What has been unpacked, up to [`MAX_UNPACKED`].
struct Output {
    bytes: Vec<u8>,
    left: usize,
}

impl Output {
    fn new() -> Output {
        Output {
            bytes: Vec::new(),
            left: MAX_UNPACKED,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        self.bytes.extend_from_slice(&bytes[..taken]);
        // 0 makes the decoder stop.
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unpacker {
    /// For a body with these header fields; `None`: its coding is another one than gzip or deflate.
    pub fn new(fields: &HeaderBlock) -> Option<Unpacker> {
        let mut codings = fields.values(KnownHeader::ContentEncoding);
        let coding = codings.next()?.trim_ascii().to_ascii_lowercase();
        let decoder = match coding.as_slice() {
            b"gzip" | b"x-gzip" => Decoder::Gzip(MultiGzDecoder::new(Output::new())),
            b"deflate" => Decoder::Deflate,
            _ => return None,
        };
        let is_ended = codings.next().is_some();
        Some(Unpacker {
            decoder,
            packed_left: MAX_PACKED,
            is_ended,
        })
    }

    /// Unpacks the next piece. Returns what came out of it.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let (false, Some(&first)) = (self.is_ended, piece.first()) else {
            return Vec::new();
        };
        let is_too_long = piece.len() > self.packed_left;
        let piece = &piece[..piece.len().min(self.packed_left)];
        self.packed_left -= piece.len();
        if let Decoder::Deflate = self.decoder {
            // RFC 9110 section 8.4.1.2: in zlib's format; some servers leave its frame out.
            self.decoder = match first & 15 {
                8 => Decoder::Zlib(ZlibDecoder::new(Output::new())),
                _ => Decoder::Raw(DeflateDecoder::new(Output::new())),
            };
        }
        let (fed, output) = match &mut self.decoder {
            Decoder::Deflate => return Vec::new(),
            Decoder::Zlib(decoder) => (write(decoder, piece), decoder.get_mut()),
            Decoder::Raw(decoder) => (write(decoder, piece), decoder.get_mut()),
            Decoder::Gzip(decoder) => (write(decoder, piece), decoder.get_mut()),
        };
        self.is_ended = fed.is_err() || output.left == 0 || is_too_long;
        std::mem::take(&mut output.bytes)
    }

    /// Whether the body could be unpacked to its end. Called once, at the end.
    pub fn is_whole(&mut self) -> bool {
        let end = match &mut self.decoder {
            Decoder::Deflate => return false,
            Decoder::Zlib(decoder) => decoder.try_finish(),
            Decoder::Raw(decoder) => decoder.try_finish(),
            Decoder::Gzip(decoder) => decoder.try_finish(),
        };
        end.is_ok() && !self.is_ended
    }
}

/// Writes all of `piece`, and makes the decoder give out what came of it, before an error too.
fn write(decoder: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    let written = decoder.write_all(piece);
    decoder.flush().and(written)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip_unpacker() -> Unpacker {
        Unpacker {
            decoder: Decoder::Gzip(MultiGzDecoder::new(Output::new())),
            packed_left: MAX_PACKED,
            is_ended: false,
        }
    }

    #[test]
    fn members_are_unpacked_one_after_the_other() {
        let body = member(b"data: {}\n\n").repeat(1000);
        let mut unpacker = gzip_unpacker();
        let unpacked: Vec<u8> = body
            .chunks(999)
            .flat_map(|piece| unpacker.feed(piece))
            .collect();
        assert_eq!(unpacked, b"data: {}\n\n".repeat(1000));
        assert!(unpacker.is_whole());
    }

    #[test]
    fn empty_members_are_not_unpacked_for_ever() {
        let mut body = member(b"").repeat(MAX_PACKED.div_ceil(20));
        body.extend(member(b"not looked at"));
        let mut unpacker = gzip_unpacker();
        let unpacked: Vec<u8> = body
            .chunks(4096)
            .flat_map(|piece| unpacker.feed(piece))
            .collect();
        assert_eq!(unpacked, b"");
        assert!(!unpacker.is_whole());
    }
}
