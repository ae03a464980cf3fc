//! THIRD-PARTY.md lists the crates that the binary is made of, with their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const FILE: &str = "THIRD-PARTY.md";
/// Set by `make third-party`: writes the file instead of comparing it.
const WRITE: &str = "WRITE_THIRD_PARTY";
/// The target of the released binary, which has one crate more than the others.
const RELEASED: &str = "x86_64-unknown-linux-musl";
/// A target whose crates have been downloaded wherever these tests run on Linux.
const USUAL: &str = "x86_64-unknown-linux-gnu";

const HEAD: &str = "# Third-party software

flow-proxy is made of these crates, some of which make code at compile time only. `make third-party`
writes this list.

| Crate | Version | Licence |
|---|---|---|
";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Asks cargo for the crates of a target; `None` where some have not been downloaded.
fn metadata(target: &str, flags: &[&str]) -> Option<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", target])
        .args(flags)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let parsed = serde_json::from_slice(&output.stdout);
    output.status.success().then(|| parsed.expect("JSON"))
}

/// Lists the crates that the binary needs, without those for tests and build scripts, a table row each.
fn rows(metadata: &Value) -> BTreeSet<String> {
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let entries = list.as_array().expect("a list").iter();
        let id = |entry: &Value| entry["id"].as_str().expect("an id").to_owned();
        entries.map(|entry| (id(entry), entry.clone())).collect()
    };
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let packages = by_id(&metadata["packages"]);
    let root = metadata["resolve"]["root"].as_str().expect("a root");
    let mut open = vec![root];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        for dependency in nodes[id]["deps"].as_array().expect("a list") {
            let mut kinds = dependency["dep_kinds"].as_array().expect("a list").iter();
            let id = dependency["pkg"].as_str().expect("an id");
            if kinds.any(|kind| kind["kind"].is_null()) && found.insert(id) {
                open.push(id);
            }
        }
    }
    let row = |id: &&str| {
        let package = &packages[*id];
        let text = |field: &str| package[field].as_str().unwrap_or("?").to_owned();
        let (name, version, licence) = (text("name"), text("version"), text("license"));
        assert_ne!(licence, "?", "{name} has no licence");
        format!("| {name} | {version} | {licence} |")
    };
    found.iter().map(row).collect()
}

#[test]
fn the_list_of_third_party_software_is_true() {
    if std::env::var_os(WRITE).is_some() {
        let metadata = metadata(RELEASED, &[]).expect("the crates can be downloaded");
        let rows: Vec<String> = rows(&metadata).into_iter().collect();
        std::fs::write(path(FILE), format!("{HEAD}{}\n", rows.join("\n"))).expect("our own file");
    }
    let text = std::fs::read_to_string(path(FILE)).expect("the file");
    let listed = text.strip_prefix(HEAD).expect("its head: make third-party");
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    if let Some(metadata) = metadata(RELEASED, &["--offline"]) {
        assert_eq!(listed, rows(&metadata), "make third-party writes it");
        return;
    }
    let metadata = metadata(USUAL, &["--offline"]).or_else(|| metadata(USUAL, &[]));
    let needed = rows(&metadata.expect("the crates can be downloaded"));
    let missing: Vec<_> = needed.difference(&listed).collect();
    assert!(missing.is_empty(), "make third-party adds {missing:?}");
    let lock = std::fs::read_to_string(path("Cargo.lock")).expect("the file");
    for row in listed.difference(&needed) {
        let words: Vec<&str> = row.split(" | ").collect();
        let (name, version) = (words[0].trim_start_matches("| "), words[1]);
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "make third-party drops {row}");
    }
}
