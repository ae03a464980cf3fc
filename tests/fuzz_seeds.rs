//! Runs the fuzzers' checks on their seeds and on small changes of them, without libFuzzer and its
//! compiler options, so that the fuzzers stay in step with the code that they check.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io, panic, thread};

// The targets import two crates. This test replaces both.
extern crate self as flow_proxy_fuzz;
extern crate self as libfuzzer_sys;

// `harness = false`: with the harness, the unit tests in these files would run here again.
#[allow(dead_code, unused_imports)] // The targets call only a part; the unit tests do not run.
#[path = "../fuzz/src/lib.rs"]
mod fuzzed;

use fuzzed::http1;
pub use fuzzed::{pieces, proxy, sse};

#[allow(unused_attributes)] // `no_main` applies to a crate.
#[path = "../fuzz/fuzz_targets"]
mod targets {
    #[path = "answer.rs"]
    pub mod answer;
    #[path = "chunked.rs"]
    pub mod chunked;
    #[path = "head.rs"]
    pub mod head;
    #[path = "sse.rs"]
    pub mod sse;
    #[path = "usage.rs"]
    pub mod usage;
}

/// Replaces libFuzzer's macro: the target becomes a function. Defined after the targets, so that they
/// need their `use`.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub fn check($bytes: &[u8]) $body
    };
}

/// Replacements for a byte: some that end lines, tokens, numbers and text, and some invalid ones.
const BYTES: &[u8] = b"\r\n\0\t ,:;=\"{f0\x7f\x80\xff";
/// The most places of a seed that are changed, one after the other.
const PLACES: usize = 16;

type Check = fn(&[u8]);

fn main() -> ExitCode {
    let targets: [(&str, Check); 5] = [
        ("answer", targets::answer::check),
        ("chunked", targets::chunked::check),
        ("head", targets::head::check),
        ("sse", targets::sse::check),
        ("usage", targets::usage::check),
    ];
    let running = targets.map(|(name, check)| thread::spawn(move || run(name, check)));
    let passed = running.map(|run| run.join().unwrap_or(false));
    if passed == [true; 5] {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether all inputs of a target pass.
fn run(name: &str, check: Check) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let seeds = fs::read_dir(&folder).and_then(|entries| {
        entries
            .map(|entry| fs::read(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    let seeds = seeds.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    let mut inputs = 0;
    for input in seeds.iter().flat_map(|seed| inputs_from(seed)) {
        inputs += 1;
        if panic::catch_unwind(|| check(&input)).is_err() {
            eprintln!("the target {name} failed on b\"{}\"", input.escape_ascii());
            return false;
        }
    }
    println!("{name}: {inputs} inputs from {} seeds", seeds.len());
    true
}

/// The seed, and variants of it: one byte replaced, removed or doubled, or the rest cut off.
fn inputs_from(seed: &[u8]) -> Vec<Vec<u8>> {
    let mut inputs = vec![seed.to_vec()];
    for at in (0..seed.len()).step_by(seed.len().div_ceil(PLACES).max(1)) {
        let (before, after) = (&seed[..at], &seed[at + 1..]);
        let put = |middle: &[u8]| [before, middle, after].concat();
        inputs.extend(BYTES.iter().map(|&byte| put(&[byte])));
        inputs.extend([put(&[]), put(&[seed[at]; 2]), before.to_vec()]);
    }
    inputs
}
