//! Responses of a LiteLLM 1.108.7, recorded in `tests/answers`: what unit tests go by.

use std::fs;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers")
}

/// The names of all of them.
pub fn files() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = entries.map(|entry| name(entry).into_string().unwrap());
    let mut files: Vec<_> = names.collect();
    files.sort();
    assert!(files.len() > 300, "{} files", files.len());
    files
}

/// Status, header fields and body of one.
pub fn read(file: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let text = fs::read(directory().join(file)).unwrap();
    let end = memchr::memmem::find(&text, b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&text[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    });
    (
        status.parse().unwrap(),
        fields.collect(),
        text[end + 4..].to_vec(),
    )
}
