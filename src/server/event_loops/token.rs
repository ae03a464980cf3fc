//! The names under which events are reported.

/// Identifies the source of an event: the slot of a connection and one of its sockets, or the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub(super) u64);

/// What an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventSource {
    Client,
    Upstream,
    /// The connection has waited for long.
    Clock,
}

/// Bits of a token for the slot. The two below hold the source, those above the generation.
const SLOT_BITS: u32 = 30;

impl Token {
    pub(crate) fn new(index: usize, generation: u32, source: EventSource) -> Token {
        debug_assert!(index < 1 << SLOT_BITS, "more slots than descriptors");
        Token(u64::from(generation) << 32 | (index as u64) << 2 | source as u64)
    }

    pub(crate) fn index(self) -> usize {
        (self.0 >> 2) as usize & ((1 << SLOT_BITS) - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn source(self) -> EventSource {
        match self.0 & 3 {
            0 => EventSource::Client,
            1 => EventSource::Upstream,
            _ => EventSource::Clock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_slot_generation_and_source() {
        for source in [
            EventSource::Client,
            EventSource::Upstream,
            EventSource::Clock,
        ] {
            let token = Token::new(16_383, u32::MAX, source);
            assert_eq!(
                (token.index(), token.generation(), token.source()),
                (16_383, u32::MAX, source)
            );
        }
    }
}
