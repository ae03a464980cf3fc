//! The sequence numbers of OpenAI's responses API, so that an error event can continue them.

use memchr::memmem;

const KEY: &[u8] = b"\"sequence_number\":";
/// A key and a number of 64 bits, with some white space between: what a cut may divide, in bytes.
const MAX_CARRY: usize = KEY.len() + 32;

/// Finds the last sequence number of a stream. The key cannot stand in a JSON string, whose quotes would
/// be escaped.
#[derive(Debug, Default)]
pub struct SequenceScanner {
    /// The end of what was scanned, in which a number may begin.
    carry: Vec<u8>,
    last: Option<u64>,
}

impl SequenceScanner {
    /// Scans the next piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        let start = &piece[..piece.len().min(MAX_CARRY)];
        self.carry.extend_from_slice(start);
        if let Some(number) = last_number(&self.carry) {
            self.last = Some(number);
        }
        if piece.len() > MAX_CARRY {
            if let Some(number) = last_number(piece) {
                self.last = Some(number);
            }
            self.carry.clear();
            self.carry
                .extend_from_slice(&piece[piece.len() - MAX_CARRY..]);
        } else {
            let surplus = self.carry.len().saturating_sub(MAX_CARRY);
            self.carry.drain(..surplus);
        }
    }

    /// The number that follows the last one; 0 where there was none.
    pub fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.saturating_add(1))
    }
}

/// The last number in `text` that is not cut off at its end.
fn last_number(text: &[u8]) -> Option<u64> {
    let mut end = text.len();
    while let Some(at) = memmem::rfind(&text[..end], KEY) {
        let value = text[at + KEY.len()..].trim_ascii_start();
        let digits = value
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits > 0 && digits < value.len() {
            let digits = std::str::from_utf8(&value[..digits]).ok()?;
            return digits.parse().ok();
        }
        end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_in_pieces_of_any_size() {
        let stream = concat!(
            "event: a\ndata: {\"type\":\"a\",\"sequence_number\":7}\n\n",
            "data: {\"sequence_number\": 12,\"text\":\"\\\"sequence_number\\\":99,\"}\n\n",
            "data: {\"type\":\"b\",\"sequence_number\":1"
        );
        for size in 1..=stream.len() {
            let mut scanner = SequenceScanner::default();
            for piece in stream.as_bytes().chunks(size) {
                scanner.feed(piece);
            }
            assert_eq!(scanner.next(), 13, "pieces of {size}");
        }
        assert_eq!(SequenceScanner::default().next(), 0);
    }
}
