//! What `make lint` checks of the sources, beside format and clippy. Prints nothing where all is well.
//!
//! - Imports point downward: each directory of `src/` names only the directories below it.
//! - A child module names nothing that its own `mod.rs` defines or re-exports.
//! - Words that only this project would understand do not come back.
//! - Files and directories stay small.
//! - The page is one document that asks for nothing from elsewhere and makes no markup of what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// The directories of `src/` and what each may name of the others.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("net", &[]),
    ("http1", &[]),
    ("config", &[]),
    ("logging", &["config"]),
    ("cli", &["config"]),
    ("server", &["net", "http1"]),
    ("upstream", &["net", "http1", "config"]),
    ("proxy", &["server", "upstream", "net", "http1", "config"]),
    ("demo", &["server", "net", "http1", "config"]),
    (
        "commands",
        &[
            "cli", "demo", "logging", "proxy", "server", "upstream", "net", "http1", "config",
        ],
    ),
];

/// Words that are not to be used, as whole words in any case. What stands in front of `=` is how the
/// thing is called instead.
const WORDS: [(&str, &[&str]); 9] = [
    ("event loop", &["lane", "lanes"]),
    ("context", &["kit", "kits"]),
    ("stack, pool", &["shelf", "shelve", "shelved", "shelves"]),
    (
        "reject",
        &[
            "refuse", "refuses", "refused", "refusing", "refusal", "refusals",
        ],
    ),
    ("error, fault", &["trouble", "troubles"]),
    ("connection", &["wire", "wires"]),
    ("the client, the caller", &["whoever", "whomever"]),
    (
        "name the one who",
        &["somebody", "anybody", "everybody", "someone", "anyone"],
    ),
    ("no client, no request", &["nobody"]),
];
/// Phrases in which such a word is the operating system's or another program's, and the name of a test that
/// documents refer to.
const PHRASES: [&str; 9] = [
    "anyone who",
    "wire_api",
    "connection refused",
    "connections are refused",
    "connections to be refused",
    "refuses_connections",
    "connectionrefused",
    "connrefused",
    "nobody_waits_for_the_waits_of_others",
];

/// Where the words are looked for.
const PROSE: [&str; 12] = [
    "src",
    "tests",
    "benches",
    "fuzz/src",
    "fuzz/fuzz_targets",
    "deploy",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "Makefile",
    ".env.example",
    ".ci",
];

const MAX_FILE_LINES: usize = 400;
const MAX_FILES: usize = 13;

const PAGE: &str = "src/proxy/admin/page.html";
/// Bytes: "one HTML document under 24 KB".
const MAX_PAGE: usize = 24_000;
/// What makes markup or code of a text, or asks for something from elsewhere.
const NOT_IN_PAGE: [&str; 13] = [
    "innerhtml",
    "outerhtml",
    "insertadjacent",
    "document.write",
    "createcontextualfragment",
    "domparser",
    "srcdoc",
    "eval(",
    "function(",
    "javascript:",
    "import(",
    "http://",
    "https://",
];

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<Source> = files_under(&root.join("src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| Source::read(root, &path))
        .collect();
    let mut found = imports(&files);
    found.extend(sizes(&files));
    found.extend(words(root));
    found.extend(page(root));
    for line in &found {
        println!("{line}");
    }
    ExitCode::from(u8::from(!found.is_empty()))
}

/// A source file, and the module that it is.
struct Source {
    name: String,
    /// `["server", "event_loops"]` for `src/server/event_loops/mod.rs`.
    module: Vec<String>,
    is_test: bool,
    /// Without comments, texts and test modules.
    code: String,
    lines: usize,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let name = path
            .strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut module: Vec<String> = name
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        let is_mod = module.last().is_some_and(|last| last == "mod");
        if is_mod || matches!(name.as_str(), "src/lib.rs" | "src/main.rs") {
            module.pop();
        }
        Source {
            is_test: module.iter().any(|part| part == "tests"),
            lines: text.lines().count(),
            code: without_tests(&plain_code(&text)),
            name,
            module,
        }
    }

    fn room(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }
}

/// Replaces comments and the insides of texts by blanks, so that what is left is code.
fn plain_code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_text(rest) {
            raw
        } else if rest.starts_with('"') {
            quoted(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\'") {
            3
        } else {
            0
        };
        if skipped > 0 {
            code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            code.push(' ');
            at += skipped;
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            code.push(c);
            at += c.len_utf8();
        }
    }
    code
}

/// The length of the raw text `r#"…"#` that `rest` begins with.
fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let start = count + 2;
    Some(
        rest[start..]
            .find(&end)
            .map_or(rest.len(), |at| start + at + end.len()),
    )
}

fn quoted(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Cuts off a test module at the end of a file.
fn without_tests(code: &str) -> String {
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(at) => code[..at].to_owned(),
        None => code.to_owned(),
    }
}

/// Each path that a file names, from the crate's root on.
fn paths(file: &Source) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut rest = file.code.as_str();
    while let Some((at, word)) = ["crate::", "super::", "self::"]
        .iter()
        .filter_map(|word| Some((rest.find(word)?, *word)))
        .min()
    {
        let is_start = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let base = match word {
            "crate::" => Vec::new(),
            "self::" => file.module.clone(),
            _ => file.module[..file.module.len().saturating_sub(1)].to_vec(),
        };
        if is_start {
            tree(&rest[at + word.len()..], base, &mut found);
        }
        rest = &rest[at + word.len()..];
    }
    found
}

/// Reads `a::{b, c::d}` and adds each path.
fn tree(text: &str, mut base: Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' | ',' if depth == 0 => {
                    tree(&group[start..at], base.clone(), found);
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    match &text[..end] {
        "" if text.starts_with('*') => base.push("*".into()),
        "" | "self" => {}
        "super" => {
            base.pop();
        }
        name => base.push(name.into()),
    }
    match text[end..].trim_start().strip_prefix("::") {
        Some(rest) => tree(rest, base, found),
        None if !base.is_empty() => {
            found.insert(base);
        }
        None => {}
    }
}

fn imports(files: &[Source]) -> Vec<String> {
    let modules: BTreeSet<&[String]> = files.iter().map(|file| file.module.as_slice()).collect();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.is_test) {
        let is_root = file.module.is_empty();
        if file.code.contains("pub use crate::") || (is_root && file.code.contains("pub use ")) {
            found.push(format!(
                "{}: re-exports a name of another directory",
                file.name
            ));
        }
        for path in paths(file) {
            let place = || format!("{} names crate::{}", file.name, path.join("::"));
            if !is_root {
                let allowed = MAY_IMPORT.iter().find(|(room, _)| *room == file.room());
                let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
                if path[0] != file.room() && !allowed.contains(&path[0].as_str()) {
                    found.push(format!("{}: imports point downward", place()));
                }
            }
            // The parent's own names, and what it re-exports: everything below it that is no module.
            let parents = (1..file.module.len()).rev();
            for length in parents.filter(|&length| length < path.len()) {
                let parent = &file.module[..length];
                if path.starts_with(parent)
                    && !modules.contains(&path[..=length])
                    && path[..=length] != file.module[..]
                {
                    let parent = parent.join("::");
                    found.push(format!(
                        "{}: a child uses no name of {parent}'s mod.rs",
                        place()
                    ));
                    break;
                }
            }
        }
    }
    found
}

fn sizes(files: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        if file.lines > MAX_FILE_LINES && !file.is_test {
            found.push(format!(
                "{}: {} lines, {MAX_FILE_LINES} at most",
                file.name, file.lines
            ));
        }
        let folder = file.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        *folders.entry(folder.to_owned()).or_default() += usize::from(!file.is_test);
    }
    for (folder, count) in folders.into_iter().filter(|(_, count)| *count > MAX_FILES) {
        found.push(format!("{folder}: {count} files, {MAX_FILES} at most"));
    }
    found
}

fn words(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in PROSE.iter().flat_map(|name| files_under(&root.join(name))) {
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if name == "tests/lint.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let mut line = line.to_lowercase();
            for phrase in PHRASES {
                line = line.replace(phrase, "");
            }
            let mut parts = line.split(|c: char| !c.is_alphabetic());
            let word = parts.find_map(|part| {
                let row = WORDS.iter().find(|(_, words)| words.contains(&part))?;
                Some((part.to_owned(), row.0))
            });
            if let Some((word, instead)) = word {
                let number = number + 1;
                found.push(format!("{name}:{number}: '{word}': say {instead}"));
            }
        }
    }
    found
}

/// What its policy needs (one style and one script, whose hashes it names), and what keeps it harmless.
fn page(root: &Path) -> Vec<String> {
    let Ok(page) = fs::read_to_string(root.join(PAGE)) else {
        return vec![format!("{PAGE}: cannot be read")];
    };
    let text = page.to_lowercase();
    let mut found = Vec::new();
    if page.len() >= MAX_PAGE {
        found.push(format!(
            "{PAGE}: {} bytes, less than {MAX_PAGE}",
            page.len()
        ));
    }
    for name in ["style", "script"] {
        let (all, plain) = (format!("<{name}"), format!("<{name}>"));
        if text.matches(&all).count() != 1 || text.matches(&plain).count() != 1 {
            found.push(format!("{PAGE}: one <{name}> element, without attributes"));
        }
    }
    let forbidden = NOT_IN_PAGE.iter().filter(|word| text.contains(*word));
    found.extend(forbidden.map(|word| format!("{PAGE}: '{word}'")));
    let attributes = text.split_whitespace().map(|word| {
        let name = word.split('=').next().unwrap_or_default();
        (name, word.len() > name.len())
    });
    let is_event = |name: &str| {
        let event = name.strip_prefix("on").unwrap_or_default();
        !event.is_empty() && event.chars().all(|c| c.is_ascii_alphabetic())
    };
    for (name, has_value) in attributes {
        if has_value && (name == "style" || is_event(name)) {
            found.push(format!("{PAGE}: an attribute {name}"));
        }
    }
    found
}

/// All files below `path`, or `path` itself; none where there is nothing, or what is built.
fn files_under(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let is_source = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !matches!(
            &*name,
            "node_modules" | "__pycache__" | "target" | "answers"
        )
    };
    entries
        .iter()
        .filter(|path| is_source(path))
        .flat_map(|path| files_under(path))
        .collect()
}
