//! A request that has ended: what is counted of it, and what the list of the last ones shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::proxy::access_line;
use crate::proxy::access_log::AccessLog;
use crate::proxy::usage::tokens::{Tokens, Usage};

/// The longest path in the list, in bytes.
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
#[derive(Debug, Clone)]
pub struct Ended {
    /// Without its configuration, which holds a secret.
    pub log: AccessLog,
    /// The name of the configuration that the client's response came from.
    pub config: Option<Arc<str>>,
    path: Box<[u8]>,
    pub at: SystemTime,
    pub duration: Duration,
}

impl Ended {
    /// The request of this log, which has ended just now. `target` is its request target.
    pub fn of(mut log: AccessLog, target: &[u8]) -> Ended {
        let path = log.path.of(target);
        let path = path[..path.len().min(MAX_TEXT)].into();
        // They may be long, and are not shown.
        (log.upstream_id, log.call_id) = (None, None);
        log.id.cut(access_line::MAX_ID);
        Ended {
            path,
            config: log.config.take().map(|config| Arc::clone(&config.name)),
            at: SystemTime::now(),
            duration: log.started.elapsed(),
            log,
        }
    }

    /// From the request's head to the response's; the whole time where there was none.
    pub fn first_byte(&self) -> Duration {
        self.log.time_to_first_byte.unwrap_or(self.duration)
    }

    pub fn tokens(&self) -> Option<Tokens> {
        match self.log.usage {
            Usage::Known(tokens) => Some(tokens),
            Usage::None | Usage::Unknown => None,
        }
    }

    /// As the log shows it.
    pub fn method(&self) -> String {
        text(self.log.method.as_str().as_bytes(), access_line::push_path)
    }

    /// As the log shows it, its beginning.
    pub fn path(&self) -> String {
        text(&self.path, access_line::push_path)
    }

    /// As the log shows it.
    pub fn id(&self) -> String {
        text(self.log.id.as_bytes(), access_line::push_id)
    }
}

/// What `push` appends for these bytes.
fn text(bytes: &[u8], push: impl FnOnce(&[u8], &mut Vec<u8>)) -> String {
    let mut shown = Vec::with_capacity(bytes.len());
    push(bytes, &mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}
