//! The documents against the program: what the READMEs say about options, commands, targets and
//! files is what is there, and both languages say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::WorkDir;

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

/// Reads a file of the repository.
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn help() -> String {
    let run = WorkDir::new().run(&["--help"], &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    run.stdout
}

/// An option with its environment variable and default.
type OptionRow = [String; 3];

/// Reads lines such as `  --port PORT  FLOW_PROXY_PORT  8899`.
fn options_of_help() -> Vec<OptionRow> {
    let help = help();
    let rows = help.lines().filter_map(|line| {
        let words: Vec<&str> = line.strip_prefix("  --")?.split_whitespace().collect();
        match words[..] {
            [option, _, variable, default] if variable.starts_with("FLOW_PROXY_") => {
                Some([format!("--{option}"), variable.into(), default.into()])
            }
            _ => None,
        }
    });
    rows.collect()
}

/// Reads the names in the list of commands, but for the one without a name.
fn commands_of_help() -> Vec<String> {
    let help = help();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "(none)")
        .map(str::to_owned)
        .collect()
}

/// Reads the rows of the table whose second column is an environment variable.
fn options_of_readme(text: &str) -> Vec<OptionRow> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let code = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        let [option, variable, default, ..] = cells[..] else {
            return None;
        };
        let row = [code(option)?, code(variable)?, code(default)?];
        row[1].starts_with("FLOW_PROXY_").then_some(row)
    });
    rows.collect()
}

/// The parts of a Markdown file that these tests compare.
#[derive(Debug, Default)]
struct Document {
    /// Level and text of each heading.
    headings: Vec<(usize, String)>,
    /// Language and lines of each fenced code block.
    blocks: Vec<(String, Vec<String>)>,
    /// The lines outside of code blocks.
    prose: Vec<String>,
}

fn document(text: &str) -> Document {
    let mut document = Document::default();
    let mut is_open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), is_open) {
            (Some(""), true) => is_open = false,
            (Some(language), false) => {
                is_open = true;
                document.blocks.push((language.to_owned(), Vec::new()));
            }
            (_, true) => {
                let block = document.blocks.last_mut().expect("one is open");
                block.1.push(line.to_owned());
            }
            (None, false) => {
                let level = line.bytes().take_while(|&byte| byte == b'#').count();
                if let Some(title) = line[level..].strip_prefix(' ').filter(|_| level > 0) {
                    document.headings.push((level, title.to_owned()));
                }
                document.prose.push(line.to_owned());
            }
        }
    }
    assert!(!is_open, "a code block has no end");
    document
}

impl Document {
    /// Finds the texts between single backquotes.
    fn code_spans(&self) -> impl Iterator<Item = &str> {
        self.prose
            .iter()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// Finds the `make` targets that are named in code.
    fn make_targets(&self) -> BTreeSet<String> {
        let lines = self.blocks.iter().flat_map(|(_, lines)| lines);
        let code = lines.map(String::as_str).chain(self.code_spans());
        let mut targets = BTreeSet::new();
        for line in code {
            let line = line.split(" #").next().unwrap_or_default();
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word == "sudo" || *word == "$");
            if words.next() == Some("make") {
                let is_target = |word: &&str| !word.contains('=') && !word.starts_with('-');
                targets.extend(words.filter(is_target).map(str::to_owned));
            }
        }
        targets
    }

    /// Finds where the links lead to.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.prose
            .iter()
            .flat_map(|line| line.split("](").skip(1))
            .filter_map(|rest| rest.split(')').next())
    }

    /// Makes the anchors that GitHub makes of the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
        let anchor = |title: &str| -> String {
            let title = title.to_lowercase();
            title.chars().filter(kept).collect::<String>()
        };
        self.headings
            .iter()
            .map(|(_, title)| anchor(title).replace(' ', "-"))
            .collect()
    }
}

/// Returns a line of code without its comment, which is in the language of the document.
fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.split(" #").next().unwrap_or_default().trim_end()
}

/// Reads the targets that `make` knows: the words before a colon at the start of a line.
fn targets_of_makefile() -> BTreeSet<String> {
    let makefile = read("Makefile");
    let rules = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ', '#', '.']))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='));
    rules
        .flat_map(|(targets, _)| targets.split_whitespace())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_option_tables_say_what_help_says() {
    let expected = options_of_help();
    assert!(expected.len() >= 12, "help could not be read: {expected:?}");
    for name in READMES {
        assert_eq!(options_of_readme(&read(name)), expected, "{name}");
    }
}

#[test]
fn every_command_of_help_is_described() {
    let commands = commands_of_help();
    assert!(commands.len() >= 5, "help could not be read: {commands:?}");
    for name in READMES {
        let text = read(name);
        for command in &commands {
            let row = format!("| `flow-proxy {command}");
            assert!(text.contains(&row), "{name} does not describe {command}");
        }
    }
}

#[test]
fn every_make_target_that_is_named_exists() {
    let targets = targets_of_makefile();
    for name in READMES {
        let named = document(&read(name)).make_targets();
        assert!(named.contains("run") && named.contains("test"), "{name}");
        let missing: Vec<_> = named.difference(&targets).collect();
        assert!(
            missing.is_empty(),
            "{name} names make targets that are missing: {missing:?}"
        );
    }
}

#[test]
fn both_languages_have_the_same_headings() {
    let levels = |name| -> Vec<usize> {
        let headings = document(&read(name)).headings;
        headings.into_iter().map(|(level, _)| level).collect()
    };
    assert!(levels(READMES[0]).len() > 10);
    assert_eq!(levels(READMES[0]), levels(READMES[1]));
}

#[test]
fn both_languages_have_the_same_code_but_for_comments() {
    let [english, chinese] = READMES.map(|name| document(&read(name)).blocks);
    assert!(english.len() > 10);
    assert_eq!(english.len(), chinese.len(), "number of code blocks");
    for (one, other) in english.iter().zip(&chinese) {
        let code = |block: &(String, Vec<String>)| -> (String, Vec<String>) {
            let lines = block.1.iter().map(|line| without_comment(line).to_owned());
            (block.0.clone(), lines.collect())
        };
        assert_eq!(code(one), code(other));
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "README.md",
        "README.zh-CN.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ] {
        let document = document(&read(name));
        let anchors = document.anchors();
        for link in document.links() {
            if link.contains("://") {
                continue;
            }
            match link.split_once('#') {
                Some(("", anchor)) => {
                    assert!(anchors.contains(anchor), "{name}: no heading for #{anchor}");
                }
                _ => {
                    let file = link.split('#').next().unwrap_or_default();
                    assert!(root.join(file).exists(), "{name}: there is no {file}");
                }
            }
        }
    }
}

#[test]
fn the_changelog_has_the_version_of_the_crate() {
    let heading = format!("[{}]", env!("CARGO_PKG_VERSION"));
    let document = document(&read("CHANGELOG.md"));
    let headings = &document.headings;
    assert!(
        headings
            .iter()
            .any(|(_, title)| title.starts_with(&heading)),
        "no heading {heading}: {headings:?}"
    );
}
