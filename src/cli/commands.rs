//! The commands and flags: what each is called, what it means, and its line of help. Pure.

use std::time::Duration;

use super::options::Complete;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy.
    Serve {
        /// Run the demo instead where there is no secrets file.
        or_demo: bool,
    },
    /// Run the proxy against a simulated Flow in the same process.
    Demo,
    /// Validate the configuration and print it.
    Check {
        /// Also ask the target, with every credential.
        online: bool,
    },
    /// Print the token of a configuration.
    Token {
        /// The configuration's name; `None` is the first one.
        name: Option<String>,
    },
    /// Ask the proxy that runs at the host and port for its health.
    Health,
    /// Show what the proxy that runs at the host and port is doing.
    Status {
        /// Print the page as it is.
        json: bool,
        /// Renew it until a signal ends the program.
        watch: bool,
    },
    /// Add up the access lines of the log file and of its rotated ones.
    Usage(UsageQuery),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Print the completions for a shell.
    Completions(Shell),
}

impl Command {
    /// Whether the command prints fixed text and needs no options.
    pub(super) fn only_prints(&self) -> bool {
        matches!(
            self,
            Command::Help | Command::Version | Command::Completions(_)
        )
    }
}

/// Which access lines are added up, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// Lines before it do not count; `None`: all count.
    pub since: Option<Since>,
    /// There is a sum for each combination of these; none: one sum.
    pub by: Vec<GroupBy>,
    /// Print JSON instead of a table.
    pub json: bool,
}

/// The time from which on lines count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// This long before now.
    Ago(Duration),
    /// Local time, as lines have it: `2024-01-15 10:30:45`.
    At(String),
}

/// What requests are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Config,
    Model,
    Client,
    Day,
    Status,
}

impl GroupBy {
    pub(super) const ALL: [GroupBy; 5] = [
        GroupBy::Config,
        GroupBy::Model,
        GroupBy::Client,
        GroupBy::Day,
        GroupBy::Status,
    ];

    /// Their names, for shells.
    pub(super) const NAMES: [&'static str; 5] = ["config", "model", "client", "day", "status"];

    /// Returns what the command line calls it.
    pub fn name(self) -> &'static str {
        GroupBy::NAMES[self as usize]
    }
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub(super) const ALL: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

    /// Returns what the command line calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        }
    }

    /// Returns the names of all shells.
    pub(super) fn names(separator: &str) -> String {
        Shell::ALL.map(Shell::name).join(separator)
    }
}

/// A command, as the help and the completions show it.
pub(super) struct CommandSpec {
    pub(super) name: &'static str,
    /// What may follow it.
    pub(super) arguments: &'static str,
    pub(super) help: &'static str,
}

/// All commands in the order of the help, except the one without a name, which runs the proxy.
pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "demo",
        arguments: "",
        help: "run the proxy against a simulated Flow: no secrets.json, no network",
    },
    CommandSpec {
        name: "check",
        arguments: "[--online]",
        help: "validate the configuration and print it; --online also asks the target",
    },
    CommandSpec {
        name: "token",
        arguments: "[NAME]",
        help: "print the token (JWT) of configuration NAME, or of the first one",
    },
    CommandSpec {
        name: "health",
        arguments: "",
        help: "exit 0 if the proxy at --host and --port answers within 3 s, else 1",
    },
    CommandSpec {
        name: "status",
        arguments: "[--json] [--watch]",
        help: "show what the proxy at --host and --port is doing, what is ill and why",
    },
    CommandSpec {
        name: "usage",
        arguments: "[--since] [--by]",
        help: "add up the log and its rotated files: requests, errors, tokens, cost",
    },
    CommandSpec {
        name: "completions",
        arguments: "SHELL",
        help: "print the completions for bash, zsh or fish",
    },
    CommandSpec {
        name: "help",
        arguments: "",
        help: "print this help",
    },
];

/// An option that belongs to a command, or that only prints.
pub(super) struct FlagSpec {
    /// The name without its two dashes.
    pub(super) long: &'static str,
    /// The letter after a single dash that means the same.
    pub(super) short: Option<char>,
    /// What its value is called in the help; empty where it takes none.
    pub(super) value_name: &'static str,
    /// What shells offer for its value.
    pub(super) complete: Complete,
    /// The commands that it goes with; none: it goes without a command.
    pub(super) commands: &'static [&'static str],
    pub(super) help: &'static str,
}

impl FlagSpec {
    const fn plain(
        long: &'static str,
        commands: &'static [&'static str],
        help: &'static str,
    ) -> FlagSpec {
        FlagSpec {
            long,
            short: None,
            value_name: "",
            complete: Complete::Nothing,
            commands,
            help,
        }
    }
}

/// All such options, in the order of the help.
pub(super) const FLAGS: &[FlagSpec] = &[
    FlagSpec::plain(
        "online",
        &["check"],
        "with check: also ask the target, with every credential",
    ),
    FlagSpec::plain(
        "or-demo",
        &[],
        "without a command: run the demo where there is no secrets file",
    ),
    FlagSpec {
        value_name: "WHEN",
        ..FlagSpec::plain(
            "since",
            &["usage"],
            "with usage: only since 7d, 12h, 30m, 2024-01-15 or '2024-01-15 10:30'",
        )
    },
    FlagSpec {
        value_name: "KEYS",
        complete: Complete::Words(&GroupBy::NAMES),
        ..FlagSpec::plain(
            "by",
            &["usage"],
            "with usage: a line per config, model, client, day or status; repeatable",
        )
    },
    FlagSpec::plain(
        "json",
        &["status", "usage"],
        "with status and usage: print JSON",
    ),
    FlagSpec::plain(
        "watch",
        &["status"],
        "with status: show it anew every 2 s, until Ctrl-C",
    ),
    FlagSpec {
        short: Some('h'),
        ..FlagSpec::plain("help", &[], "print this help")
    },
    FlagSpec {
        short: Some('V'),
        ..FlagSpec::plain("version", &[], "print the version")
    },
];
