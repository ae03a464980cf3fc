//! Splits a file into lines, in memory that no file makes grow. Unpacks gzip.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use flate2::read::MultiGzDecoder;
use memchr::{memchr, memrchr};

/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// The longest line that counts, in bytes: the longest access line is some kilobytes.
const MAX_LINE: usize = 32 * 1024;
/// What a gzip member begins with (RFC 1952 section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Calls `take` with each line of the file, without its line end. Lines that are too long are passed over.
///
/// # Errors
/// The file cannot be read to its end, or its compressed data is damaged or cut short.
pub fn for_each(mut file: &File, take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut magic = Vec::new();
    file.take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    if magic == GZIP_MAGIC {
        let packed = BufReader::with_capacity(BUFFER, file);
        split(MultiGzDecoder::new(packed), take)
    } else {
        split(file, take)
    }
}

fn split(mut reader: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    // What is left of the last line stands at the buffer's start.
    let mut kept = 0;
    let mut is_too_long = false;
    loop {
        let length = match reader.read(&mut buffer[kept..]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if length == 0 {
            if !is_too_long && kept > 0 {
                take(&buffer[..kept]);
            }
            return Ok(());
        }
        let filled = kept + length;
        let Some(last_end) = memrchr(b'\n', &buffer[kept..filled]).map(|at| kept + at) else {
            // No line ends here.
            is_too_long |= filled > MAX_LINE;
            kept = if is_too_long { 0 } else { filled };
            continue;
        };
        let mut rest = &buffer[..last_end + 1];
        while let Some(end) = memchr(b'\n', rest) {
            let is_rest_of_long = std::mem::take(&mut is_too_long);
            if !is_rest_of_long && end <= MAX_LINE {
                take(&rest[..end]);
            }
            rest = &rest[end + 1..];
        }
        buffer.copy_within(last_end + 1..filled, 0);
        kept = filled - (last_end + 1);
        is_too_long = kept > MAX_LINE;
        kept = if is_too_long { 0 } else { kept };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out at most `.1` bytes at once.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_read_and_long_ones_are_passed_over() {
        let long = vec![b'x'; MAX_LINE + 1];
        let longest = vec![b'y'; MAX_LINE];
        let endless = vec![b'z'; 3 * BUFFER];
        let parts: [&[u8]; 8] = [b"a", b"", &long, b"b", &endless, &longest, b"c", b"d"];
        let text = parts.join(&b'\n');
        for at_once in [1, 7, 4096, BUFFER] {
            let mut lines = Vec::new();
            split(Slowly(&text, at_once), |line| lines.push(line.to_vec())).unwrap();
            let expected: [&[u8]; 6] = [b"a", b"", b"b", &longest, b"c", b"d"];
            assert_eq!(lines.len(), expected.len(), "{at_once}");
            assert!(lines.iter().eq(expected.iter()), "{at_once}");
        }
    }
}
