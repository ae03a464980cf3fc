//! The arguments, taken apart into a command, options and errors. Values are not checked here. Pure.

use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use super::commands::{COMMANDS, Command, FLAGS, Shell};
use super::options::{OPTIONS, OptionSpec};
use crate::config::options::Options;
use crate::config::shown::{quoted, shown};
use crate::config::suggest::{self, nearest};

/// What the arguments say.
pub(super) struct Arguments {
    /// What to do; `None` where an error hides it.
    pub(super) command: Option<Command>,
    /// The options that take a value, by their long names, in the order of the arguments.
    pub(super) values: Vec<(&'static str, OsString)>,
    /// One line for each problem.
    pub(super) errors: Vec<String>,
}

/// Takes the arguments apart. With `--help` or `--version` anywhere among them, nothing else counts.
pub(super) fn read(arguments: impl Iterator<Item = OsString>) -> Arguments {
    let mut reader = Reader::default();
    reader.read(lexopt::Parser::from_args(arguments.collect::<Vec<_>>()));
    if let Some(command) = reader.print_flag {
        return Arguments {
            command: Some(command),
            values: Vec::new(),
            errors: Vec::new(),
        };
    }
    let command = reader.command();
    Arguments {
        command,
        values: reader.values,
        errors: reader.errors,
    }
}

/// What is known of the arguments that were read so far.
#[derive(Default)]
struct Reader {
    values: Vec<(&'static str, OsString)>,
    /// The arguments that are neither an option nor its value.
    words: Vec<String>,
    /// Whether `--online` is among the arguments.
    online: bool,
    /// Whether `--or-demo` is among the arguments.
    or_demo: bool,
    /// What `--help` or `--version` asks for, whichever comes first.
    print_flag: Option<Command>,
    errors: Vec<String>,
}

impl Reader {
    fn read(&mut self, mut parser: lexopt::Parser) {
        // The word after an unknown option is probably its value: it is not reported as well.
        let mut after_unknown = false;
        loop {
            let arg = match parser.next() {
                Ok(Some(arg)) => arg,
                Ok(None) => return,
                Err(error) => {
                    self.errors.push(usage_error(&error));
                    continue;
                }
            };
            let is_value_of_unknown = std::mem::take(&mut after_unknown);
            match arg {
                Arg::Value(_) if is_value_of_unknown => {}
                Arg::Value(word) => self.word(word),
                Arg::Long("online") => self.online = true,
                Arg::Long("or-demo") => self.or_demo = true,
                Arg::Long("help") | Arg::Short('h') => self.set_print_flag(Command::Help),
                Arg::Long("version") | Arg::Short('V') => self.set_print_flag(Command::Version),
                Arg::Long(name) => match OPTIONS.iter().find(|spec| spec.long == name) {
                    Some(spec) => self.value(spec, value_of(spec, &mut parser)),
                    None => {
                        self.unknown(&format!("--{name}"), name.to_owned());
                        after_unknown = parser.optional_value().is_none();
                    }
                },
                Arg::Short(letter) => {
                    self.unknown(&format!("-{letter}"), letter.to_string());
                    after_unknown = parser.optional_value().is_none();
                }
            }
        }
    }

    fn word(&mut self, word: OsString) {
        match word.into_string() {
            Ok(word) => self.words.push(word),
            Err(word) => {
                let shown = quoted(&word.to_string_lossy());
                self.errors.push(format!("{shown} is not UTF-8"));
            }
        }
    }

    fn set_print_flag(&mut self, command: Command) {
        self.print_flag.get_or_insert(command);
    }

    fn value(&mut self, spec: &OptionSpec, value: Option<OsString>) {
        match value {
            Some(value) if !value.is_empty() => self.values.push((spec.long, value)),
            _ => {
                let (long, name) = (spec.long, spec.value_name);
                self.errors
                    .push(format!("--{long}: a value is missing (--{long} {name})"));
            }
        }
    }

    fn unknown(&mut self, option: &str, name: String) {
        let shown = shown(option);
        let options = OPTIONS.iter().map(|spec| spec.long);
        let known = options.chain(FLAGS.iter().map(|flag| flag.long));
        let hint = nearest(&name, known).map_or(String::new(), |name| format!("--{name}"));
        self.errors
            .push(format!("{shown}: unknown option; did you mean {hint}?"));
    }

    /// Returns the command that the words name; `None` after an error about them.
    fn command(&mut self) -> Option<Command> {
        let errors_before = self.errors.len();
        let mut words = std::mem::take(&mut self.words).into_iter();
        let name = words.next();
        let command = match name.as_deref() {
            None => Command::Serve {
                or_demo: self.or_demo,
            },
            Some("demo") => Command::Demo,
            Some("check") => Command::Check {
                online: self.online,
            },
            Some("token") => Command::Token { name: words.next() },
            Some("health") => Command::Health,
            Some("help") => Command::Help,
            Some("completions") => Command::Completions(self.shell(words.next())?),
            Some(other) => {
                self.errors.push(unknown_command(other));
                return None;
            }
        };
        if self.online && !matches!(command, Command::Check { .. }) {
            self.errors
                .push("--online: goes with the command check only".to_owned());
        }
        if self.or_demo && !matches!(command, Command::Serve { .. }) {
            self.errors
                .push("--or-demo: goes without a command only".to_owned());
        }
        let after = name.map_or(String::new(), |name| format!(" after {name}"));
        let extra = words.map(|word| format!("{}: unexpected{after}", quoted(&word)));
        self.errors.extend(extra);
        (self.errors.len() == errors_before).then_some(command)
    }

    fn shell(&mut self, word: Option<String>) -> Option<Shell> {
        let allowed = Shell::names(", ");
        let Some(word) = word else {
            self.errors
                .push(format!("completions: a shell is missing ({allowed})"));
            return None;
        };
        let shell = Shell::ALL.into_iter().find(|shell| shell.name() == word);
        if shell.is_none() {
            let shown = quoted(&word);
            self.errors
                .push(format!("completions: {shown} is not a shell ({allowed})"));
        }
        shell
    }
}

/// Returns what is wrong, without the value.
fn usage_error(error: &lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option}: takes no value"),
        other => shown(&other.to_string()),
    }
}

/// Returns the value of an option: after an equals sign, or the next argument. Where the option may
/// stand alone, the next argument is taken only if the option accepts it. `None`: it is missing.
fn value_of(spec: &OptionSpec, parser: &mut lexopt::Parser) -> Option<OsString> {
    let Some(bare) = spec.bare else {
        return parser.value().ok();
    };
    let is_value = |word: &OsStr| {
        word.to_str()
            .is_some_and(|text| (spec.set)(&mut Options::default(), text).is_ok())
    };
    let given = parser.optional_value();
    let given = given.or_else(|| parser.try_raw_args()?.next_if(is_value));
    given.or(Some(bare.into()))
}

fn unknown_command(word: &str) -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let hint = match nearest(word, names.iter().copied()) {
        // Any two names this short are near each other: a hint needs half of the name in common.
        Some(name) if suggest::distance(word, name) * 2 <= name.len() => {
            format!("; did you mean {name}?")
        }
        _ => String::new(),
    };
    let names = names.join(", ");
    format!(
        "{} is not a command ({names}; none runs the proxy){hint}",
        quoted(word)
    )
}
