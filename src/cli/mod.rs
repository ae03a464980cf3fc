//! The command line, the environment and `.env`, made into a [`Command`] and [`Options`].
//!
//! Owns which commands and options there are (one table, `table.rs`), their precedence, and every
//! message about wrong ones. Out of scope: printing and exiting (`main`), and whether files exist.
//! Pure but for reading `.env`; `main` calls it once, before any other thread runs.

mod completions;
mod dotenv;
mod help;
mod options;
mod suggest;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use lexopt::Arg;

pub use self::completions::completions;
pub use self::help::{help, version};
use self::options::{COMMANDS, FLAGS, OPTIONS, OptionSpec, PREFIX, SHELLS};
use self::suggest::nearest;
use self::values::{printable, quoted};
use crate::config::options::Options;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy.
    Serve,
    /// Run it against a simulated Flow in the same process.
    Demo,
    /// Print what would run, or every problem.
    Check {
        /// Also ask the target, with every credential.
        online: bool,
    },
    /// Print the token of a configuration.
    Token {
        /// The configuration's name; the first one where there is none.
        name: Option<String>,
    },
    /// Ask the proxy that runs at the host and port for its health.
    Health,
    /// Print [`help()`].
    Help,
    /// Print [`version`].
    Version,
    /// Print [`completions()`] for a shell.
    Completions(Shell),
}

/// A shell that [`completions()`] are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Everything that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The options in force.
    pub options: Options,
    /// What looks like a mistake but stops nothing, a line each.
    pub warnings: Vec<String>,
    /// Each option in the order of the help, with its value and where that came from.
    pub sources: Vec<Setting>,
}

/// An option in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's name without its dashes, such as `log-level`.
    pub name: &'static str,
    /// Its value as the option takes it, on one line; `none` where there is none.
    pub value: String,
    /// Where the value came from.
    pub source: Source,
}

/// Where a value came from, the first of these that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    CommandLine,
    /// The environment variable of this name.
    Environment(&'static str),
    DotEnv,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::CommandLine => "command line",
            Source::Environment(name) => name,
            Source::DotEnv => ".env",
            Source::Default => "default",
        })
    }
}

/// Every problem that was found, a line each, without the program's name in front. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageErrors(pub Vec<String>);

impl fmt::Display for UsageErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for UsageErrors {}

/// Reads the command line `args` (without the program's name), the environment and the `.env` file
/// at `dotenv_path`, in this order of precedence.
///
/// What only prints (help, version, completions) looks at neither environment nor `.env`, and help
/// and version are given whatever else stands on the command line.
///
/// # Errors
///
/// Every problem in one go, in the order of the command line and of the help.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    dotenv_path: &Path,
) -> Result<Invocation, UsageErrors> {
    let mut line = CommandLine::read(args);
    if let Some(command) = line.asked_to_print.take() {
        return Ok(Invocation::that_prints(command));
    }
    let command = line.command();
    if let Some(printing @ (Command::Help | Command::Completions(_))) = &command
        && line.errors.is_empty()
    {
        return Ok(Invocation::that_prints(printing.clone()));
    }
    let mut errors = std::mem::take(&mut line.errors);
    let layers = Layers {
        command_line: line.values,
        environment: environment.filter_map(ours).collect(),
        dotenv: dotenv::read(dotenv_path).unwrap_or_else(|faults| {
            errors.extend(faults);
            Vec::new()
        }),
        dotenv_name: dotenv_path.display().to_string(),
    };
    let mut options = Options::default();
    let mut sources = Vec::new();
    for (index, spec) in OPTIONS.iter().enumerate() {
        match layers.apply(index, spec, &mut options) {
            Ok(source) => sources.push(Setting {
                name: spec.long,
                value: printable(&(spec.show)(&options)),
                source,
            }),
            Err(error) => errors.push(error),
        }
    }
    match command {
        Some(command) if errors.is_empty() => Ok(Invocation {
            command,
            options,
            warnings: layers.warnings(),
            sources,
        }),
        _ => Err(UsageErrors(errors)),
    }
}

impl Invocation {
    fn that_prints(command: Command) -> Invocation {
        Invocation {
            command,
            options: Options::default(),
            warnings: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// The command line in its parts; values are not looked at yet.
#[derive(Default)]
struct CommandLine {
    /// The last value of each option, by its index in the table.
    values: [Option<OsString>; OPTIONS.len()],
    /// What is neither option nor value.
    words: Vec<String>,
    /// `--online` was given.
    online: bool,
    /// `--help` or `--version`, the first of them.
    asked_to_print: Option<Command>,
    errors: Vec<String>,
}

impl CommandLine {
    fn read(args: impl Iterator<Item = OsString>) -> CommandLine {
        let args: Vec<OsString> = args.collect();
        let mut line = CommandLine::default();
        let mut parser = lexopt::Parser::from_args(args);
        // What follows an unknown option is probably its value: no second complaint about it.
        let mut after_unknown = false;
        loop {
            let arg = match parser.next() {
                Ok(Some(arg)) => arg,
                Ok(None) => return line,
                Err(error) => {
                    line.errors.push(printable(&error.to_string()));
                    continue;
                }
            };
            let is_value_of_unknown = std::mem::take(&mut after_unknown);
            match arg {
                Arg::Value(_) if is_value_of_unknown => {}
                Arg::Value(word) => line.word(word),
                Arg::Long("online") => line.online = true,
                Arg::Long("help") | Arg::Short('h') => line.print(Command::Help),
                Arg::Long("version") | Arg::Short('V') => line.print(Command::Version),
                Arg::Long(name) => match OPTIONS.iter().position(|spec| spec.long == name) {
                    Some(index) => line.value(index, parser.value().ok()),
                    None => {
                        line.unknown(&format!("--{name}"), name.to_owned());
                        after_unknown = parser.optional_value().is_none();
                    }
                },
                Arg::Short(letter) => {
                    line.unknown(&format!("-{letter}"), letter.to_string());
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

    fn print(&mut self, command: Command) {
        self.asked_to_print.get_or_insert(command);
    }

    fn value(&mut self, index: usize, value: Option<OsString>) {
        match value {
            Some(value) if !value.is_empty() => self.values[index] = Some(value),
            _ => {
                let spec = &OPTIONS[index];
                let (long, name) = (spec.long, spec.value_name);
                self.errors
                    .push(format!("--{long}: a value is missing (--{long} {name})"));
            }
        }
    }

    fn unknown(&mut self, shown: &str, name: String) {
        let options = OPTIONS.iter().map(|spec| spec.long);
        let known = options.chain(FLAGS.iter().map(|flag| flag.long));
        let hint = nearest(&name, known).map_or(String::new(), |name| format!("--{name}"));
        let shown = printable(shown);
        self.errors
            .push(format!("{shown}: unknown option; did you mean {hint}?"));
    }

    /// The command that the words make; `None` after an error.
    fn command(&mut self) -> Option<Command> {
        let errors_before = self.errors.len();
        let mut words = std::mem::take(&mut self.words).into_iter();
        let name = words.next();
        let command = match name.as_deref() {
            None => Command::Serve,
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
        let after = name.map_or(String::new(), |name| format!(" after {name}"));
        let extra = words.map(|word| format!("{}: unexpected{after}", quoted(&word)));
        self.errors.extend(extra);
        (self.errors.len() == errors_before).then_some(command)
    }

    fn shell(&mut self, word: Option<String>) -> Option<Shell> {
        let allowed = SHELLS.join(", ");
        match word.as_deref() {
            Some("bash") => return Some(Shell::Bash),
            Some("zsh") => return Some(Shell::Zsh),
            Some("fish") => return Some(Shell::Fish),
            Some(other) => {
                let shown = quoted(other);
                self.errors
                    .push(format!("completions: {shown} is not a shell ({allowed})"));
            }
            None => self
                .errors
                .push(format!("completions: a shell is missing ({allowed})")),
        }
        None
    }
}

fn unknown_command(word: &str) -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let hint = match nearest(word, names.iter().copied()) {
        // Names as short as these are all near to each other: a hint needs half of one in common.
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

/// The variables that are this program's; empty ones count as unset.
fn ours((name, value): (OsString, OsString)) -> Option<(String, OsString)> {
    let name = name.to_string_lossy();
    (name.starts_with(PREFIX) && !value.is_empty()).then(|| (name.into_owned(), value))
}

/// Where values come from, the first before the second.
struct Layers {
    command_line: [Option<OsString>; OPTIONS.len()],
    environment: Vec<(String, OsString)>,
    dotenv: dotenv::Variables,
    /// What errors call the `.env` file.
    dotenv_name: String,
}

impl Layers {
    /// Sets the option from the first layer that has a value; only that value is checked.
    fn apply(
        &self,
        index: usize,
        spec: &OptionSpec,
        options: &mut Options,
    ) -> Result<Source, String> {
        let env = spec.env;
        let set = |options: &mut Options, value: &OsString, place: String| {
            let text = value.to_str().ok_or("the value is not UTF-8".to_owned());
            text.and_then(|text| (spec.set)(options, text))
                .map_err(|error| format!("{place}: {error}"))
        };
        if let Some(value) = &self.command_line[index] {
            set(options, value, format!("--{}", spec.long))?;
            return Ok(Source::CommandLine);
        }
        if let Some((_, value)) = self.environment.iter().find(|(name, _)| name == env) {
            set(options, value, env.to_owned())?;
            return Ok(Source::Environment(env));
        }
        // As in shells, the last of two assignments counts.
        if let Some((_, value)) = self.dotenv.iter().rfind(|(name, _)| name == env)
            && !value.is_empty()
        {
            let value = OsString::from(value);
            set(options, &value, format!("{}: {env}", self.dotenv_name))?;
            return Ok(Source::DotEnv);
        }
        Ok(Source::Default)
    }

    /// Variables that look like a mistake.
    fn warnings(&self) -> Vec<String> {
        let environment = self
            .environment
            .iter()
            .map(|(name, _)| (String::new(), name));
        let place = format!("{}: ", self.dotenv_name);
        let dotenv = self.dotenv.iter().filter(|(_, value)| !value.is_empty());
        let dotenv = dotenv.map(|(name, _)| (place.clone(), name));
        let mut warnings: Vec<String> = environment
            .chain(dotenv)
            .filter_map(|(place, name)| Some(format!("{place}{}", unknown_variable(name)?)))
            .collect();
        for (name, _) in &self.dotenv {
            if PROXY_VARIABLES.contains(&name.to_ascii_uppercase().as_str()) {
                warnings.push(format!(
                    "{place}{name} is read from the environment only and has no effect here"
                ));
            }
        }
        warnings
    }
}

/// Where the way to the target is said to lead through another proxy: not options of this program.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The warning about a variable that begins like ours and is none.
fn unknown_variable(name: &str) -> Option<String> {
    let suffix = name.strip_prefix(PREFIX)?;
    if OPTIONS.iter().any(|spec| spec.env == name) {
        return None;
    }
    let known = OPTIONS.iter().map(|spec| &spec.env[PREFIX.len()..]);
    let hint = nearest(suffix, known)?;
    let name = printable(name);
    Some(format!(
        "{name}: unknown variable, ignored; did you mean {PREFIX}{hint}?"
    ))
}
