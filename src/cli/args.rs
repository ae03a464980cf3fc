//! The arguments, taken apart into a command, options and errors. Values are not checked here. Pure.

use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use super::commands::{COMMANDS, Command, FLAGS, FlagSpec, Shell, UsageQuery};
use super::options::{OPTIONS, OptionSpec};
use super::values;
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
    /// The flags among the arguments, each with its value, which is empty where it takes none.
    flags: Vec<(&'static FlagSpec, OsString)>,
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
                Arg::Long("help") | Arg::Short('h') => self.set_print_flag(Command::Help),
                Arg::Long("version") | Arg::Short('V') => self.set_print_flag(Command::Version),
                Arg::Long(name) => {
                    if let Some(spec) = OPTIONS.iter().find(|spec| spec.long == name) {
                        self.value(spec, value_of(spec, &mut parser));
                    } else if let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) {
                        self.flag(flag, &mut parser);
                    } else {
                        self.unknown(&format!("--{name}"), name.to_owned());
                        after_unknown = parser.optional_value().is_none();
                    }
                }
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
            _ => self.missing_value(spec.long, spec.value_name),
        }
    }

    fn flag(&mut self, flag: &'static FlagSpec, parser: &mut lexopt::Parser) {
        if flag.value_name.is_empty() {
            return self.flags.push((flag, OsString::new()));
        }
        match parser.value() {
            Ok(value) if !value.is_empty() => self.flags.push((flag, value)),
            _ => self.missing_value(flag.long, flag.value_name),
        }
    }

    fn missing_value(&mut self, long: &str, name: &str) {
        self.errors
            .push(format!("--{long}: a value is missing (--{long} {name})"));
    }

    fn unknown(&mut self, option: &str, name: String) {
        let shown = shown(option);
        let options = OPTIONS.iter().map(|spec| spec.long);
        let known = options.chain(FLAGS.iter().map(|flag| flag.long));
        // Everything is near to a single letter, and the shortest name is the nearest.
        let begins = known.clone().find(|known| known.starts_with(name.as_str()));
        let hint = begins.or_else(|| nearest(&name, known));
        let hint = hint.map_or(String::new(), |name| format!("--{name}"));
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
                or_demo: self.has("or-demo"),
            },
            Some("demo") => Command::Demo,
            Some("check") => Command::Check {
                online: self.has("online"),
            },
            Some("token") => Command::Token { name: words.next() },
            Some("health") => Command::Health,
            Some("status") => Command::Status {
                json: self.has("json"),
                watch: self.has("watch"),
            },
            Some("usage") => Command::Usage(self.usage_query()),
            Some("help") => Command::Help,
            Some("completions") => Command::Completions(self.shell(words.next())?),
            Some(other) => {
                self.errors.push(unknown_command(other));
                return None;
            }
        };
        let misplaced = self.flags.iter();
        let misplaced = misplaced.filter_map(|(flag, _)| misplaced_flag(flag, name.as_deref()));
        self.errors.extend(misplaced);
        let after = name.map_or(String::new(), |name| format!(" after {name}"));
        let extra = words.map(|word| format!("{}: unexpected{after}", quoted(&word)));
        self.errors.extend(extra);
        (self.errors.len() == errors_before).then_some(command)
    }

    /// Whether a flag is among the arguments.
    fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag.long == long)
    }

    fn usage_query(&mut self) -> UsageQuery {
        let mut query = UsageQuery {
            json: self.has("json"),
            ..UsageQuery::default()
        };
        for (flag, value) in &self.flags {
            let value = value.to_string_lossy();
            let outcome = match flag.long {
                "since" => values::since(&value).map(|since| query.since = Some(since)),
                "by" => values::group_by(&value, &mut query.by),
                _ => Ok(()),
            };
            let error = outcome.err();
            let error = error.map(|error| format!("--{}: {error}", flag.long));
            self.errors.extend(error);
        }
        query
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

/// Returns what is wrong where a flag does not go with the command.
fn misplaced_flag(flag: &FlagSpec, command: Option<&str>) -> Option<String> {
    let long = flag.long;
    match (flag.commands, command) {
        ([], None) => None,
        ([], Some(_)) => Some(format!("--{long}: goes without a command only")),
        (known, Some(command)) if known.contains(&command) => None,
        ([one], _) => Some(format!("--{long}: goes with the command {one} only")),
        (known, _) => {
            let known = known.join(" and ");
            Some(format!("--{long}: goes with the commands {known} only"))
        }
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
        // Any two names this short are near each other: a hint needs more than half of the name in common.
        Some(name) if suggest::distance(word, name) * 2 < name.len() => {
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
