//! What a response used.

/// Tokens that a response says it used. Sums saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// All input tokens, those read from a cache and newly cached included.
    pub input: u64,
    /// Of the input, those read from a cache.
    pub cached: u64,
    /// All output tokens, those of reasoning included.
    pub output: u64,
}

impl Tokens {
    /// `None`: all are 0, which says nothing.
    pub fn some(self) -> Option<Tokens> {
        (self != Tokens::default()).then_some(self)
    }

    pub fn plus(self, other: Tokens) -> Tokens {
        Tokens {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            output: self.output.saturating_add(other.output),
        }
    }
}

/// What is known of the tokens of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// It is of no kind that uses tokens, or failed.
    #[default]
    None,
    /// It may have used tokens, and does not tell.
    Unknown,
    Known(Tokens),
}
