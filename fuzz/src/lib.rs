//! The parsers that are fuzzed, included from the proxy's sources file by file. They do no I/O and do
//! not depend on the rest, so the fuzzers build in seconds, without TLS.
//!
//! The targets are in `fuzz_targets/`, each with a second implementation to compare with; their seeds
//! are in `seeds/`. `make fuzz` runs them; `tests/fuzz_seeds.rs` runs them on the seeds only.

#[path = "../../src/http1"]
pub mod http1 {
    pub mod body;
    pub mod error;
    pub mod headers;
    pub mod request;
    pub mod response;
}

#[path = "../../src/proxy"]
pub mod proxy {
    #[cfg(test)]
    pub mod recorded;
    pub mod sse;
    pub mod unpack;
    pub mod usage;
}

pub use proxy::sse;

/// Cuts `bytes` into pieces whose sizes depend on `seed`: mostly a few bytes, sometimes many. Seed 0
/// gives one piece, seed 1 single bytes.
pub fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = match seed {
            0 => rest.len(),
            1 => 1,
            _ => {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match state >> 24 {
                    high @ 240.. => 16 * (high as usize - 239),
                    low => 1 + low as usize % 8,
                }
            }
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
