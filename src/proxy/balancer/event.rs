//! Changes of a configuration's health, as the log tells them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

/// A change of a configuration's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: Arc<str>,
    pub kind: EventKind,
    /// The model of the request, where it is known.
    pub model: Option<Box<str>>,
    /// Configurations that are well afterwards.
    pub remaining: usize,
    pub total: usize,
}

/// What has begun or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    Failed,
    Limited { rest: Duration },
    BudgetSpent { rest: Duration },
    ModelDenied { rest: Duration },
    ModelLimited { rest: Duration },
    Busy,
    Restored,
}

impl Event {
    /// Writes the line for it.
    pub fn log(&self) {
        let level = match self.kind {
            EventKind::Failed => Level::Error,
            EventKind::Restored => Level::Info,
            EventKind::Busy => Level::Debug,
            _ => Level::Warn,
        };
        log::log!(level, "{self}");
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            name,
            remaining,
            total,
            ..
        } = self;
        let model = Printable(self.model.as_deref().unwrap_or_default());
        write!(formatter, "Configuration '{name}' ")?;
        match &self.kind {
            EventKind::Failed => write!(formatter, "marked as failed.")?,
            EventKind::Limited { rest } => {
                write!(formatter, "rate limited, resting {} s.", whole(*rest))?;
            }
            EventKind::BudgetSpent { rest } => {
                write!(formatter, "budget exceeded, resting {} s.", whole(*rest))?;
            }
            EventKind::ModelDenied { rest } => {
                let rest = whole(*rest);
                return write!(
                    formatter,
                    "may not use model '{model}', passed over for it for {rest} s"
                );
            }
            EventKind::ModelLimited { rest } => {
                let rest = whole(*rest);
                return write!(
                    formatter,
                    "rate limited for model '{model}', resting {rest} s"
                );
            }
            EventKind::Busy => return write!(formatter, "busy, resting until a request ends"),
            EventKind::Restored => write!(formatter, "restored.")?,
        }
        write!(formatter, " Remaining: {remaining}/{total}")
    }
}

/// Whole seconds, rounded up.
fn whole(rest: Duration) -> u128 {
    rest.as_millis().div_ceil(1000)
}

/// A value from outside as the log shows it: 64 characters at most, printable ASCII without quotes.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '\'' | '"' | '\\');
        for c in self.0.chars().filter(is_plain).take(64) {
            write!(formatter, "{c}")?;
        }
        Ok(())
    }
}
