//! The commands and flags: what each is called, what it means, and its line of help. Pure.

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

/// An option without a value.
pub(super) struct FlagSpec {
    /// The name without its two dashes.
    pub(super) long: &'static str,
    /// The letter after a single dash that means the same.
    pub(super) short: Option<char>,
    pub(super) help: &'static str,
}

/// All options without a value, in the order of the help.
pub(super) const FLAGS: &[FlagSpec] = &[
    FlagSpec {
        long: "online",
        short: None,
        help: "with check: also ask the target, with every credential",
    },
    FlagSpec {
        long: "or-demo",
        short: None,
        help: "without a command: run the demo where there is no secrets file",
    },
    FlagSpec {
        long: "help",
        short: Some('h'),
        help: "print this help",
    },
    FlagSpec {
        long: "version",
        short: Some('V'),
        help: "print the version",
    },
];
