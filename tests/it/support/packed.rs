//! Compressed bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// Packs a body as `gzip`, or as `deflate` in zlib's format or in none (`raw`).
pub fn packed(coding: &str, text: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    let write = |mut encoder: Box<dyn FnMut() -> std::io::Result<Vec<u8>>>| encoder();
    let text = text.to_vec();
    let pack: Box<dyn FnMut() -> std::io::Result<Vec<u8>>> = match coding {
        "gzip" => Box::new(move || {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(&text)?;
            encoder.finish()
        }),
        "deflate" => Box::new(move || {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(&text)?;
            encoder.finish()
        }),
        _ => Box::new(move || {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(&text)?;
            encoder.finish()
        }),
    };
    write(pack).expect("memory")
}
