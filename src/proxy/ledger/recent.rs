//! A request that has ended: what is counted of it, and what the list of the last ones shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::proxy::access_log::{AccessLog, ExchangeEnd};
use crate::proxy::usage::tokens::{Tokens, Usage};

/// The longest path, method or id in the list, in bytes.
const MAX_TEXT: usize = 256;

/// One attempt at a request: the configuration, and what its response said.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'r> {
    pub config: &'r Arc<str>,
    /// `ok`, the name of a verdict, or `none` where no response came.
    pub verdict: &'static str,
    /// The response says something bad about the credential.
    pub is_rejected: bool,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Ended<'r> {
    pub log: &'r AccessLog,
    /// The path of its target.
    pub path: &'r [u8],
    /// In their order.
    pub attempts: &'r [Attempt<'r>],
    pub at: SystemTime,
    pub duration: Duration,
}

/// What the list of the last requests shows of one.
#[derive(Debug, Clone)]
pub struct Recent {
    pub at: SystemTime,
    pub method: Box<str>,
    pub path: Box<str>,
    pub status: u16,
    pub config: Option<Arc<str>>,
    pub model: Option<Box<str>>,
    pub attempts: usize,
    pub first_byte: Duration,
    pub duration: Duration,
    pub end: ExchangeEnd,
    pub agent: Option<Box<str>>,
    pub tokens: Option<Tokens>,
    pub cost: Option<f64>,
    pub id: Box<str>,
}

impl Ended<'_> {
    /// The name of the configuration that the client's response came from.
    pub fn config(&self) -> Option<&Arc<str>> {
        self.log.config.as_ref().map(|config| &config.name)
    }

    /// From the request's head to the response's; the whole time where there was none.
    pub fn first_byte(&self) -> Duration {
        self.log.time_to_first_byte.unwrap_or(self.duration)
    }

    pub(super) fn recent(&self) -> Recent {
        let log = self.log;
        Recent {
            at: self.at,
            method: text(log.method.as_str().as_bytes()),
            path: text(self.path),
            status: log.status,
            config: self.config().cloned(),
            model: log.model.clone(),
            attempts: log.attempts,
            first_byte: self.first_byte(),
            duration: self.duration,
            end: log.end,
            agent: log.agent.clone(),
            tokens: match log.usage {
                Usage::Known(tokens) => Some(tokens),
                Usage::None | Usage::Unknown => None,
            },
            cost: log.cost,
            id: text(log.id.as_bytes()),
        }
    }
}

/// The text as the log shows it: cut, and `%XX` for what could be taken for something else.
fn text(bytes: &[u8]) -> Box<str> {
    let mut shown = Vec::with_capacity(bytes.len().min(MAX_TEXT));
    crate::proxy::access_line::push_path(&bytes[..bytes.len().min(MAX_TEXT)], &mut shown);
    String::from_utf8_lossy(&shown).into()
}
