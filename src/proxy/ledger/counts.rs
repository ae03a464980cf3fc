//! The counts themselves. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::histogram::{DURATION, FIRST_BYTE, Histogram};
use super::minutes::Minutes;
use super::recent::{Attempt, Ended};
use crate::proxy::access_log::{AccessLog, ExchangeEnd};
use crate::proxy::usage::tokens::{Tokens, Usage};

/// Models that are counted by name; further ones are [`OTHER`].
const MAX_MODELS: usize = 50;
/// Clients that are counted by name.
const MAX_CLIENTS: usize = 200;
/// Configurations that are counted by name: those of reloads come on top of those in use.
const MAX_CONFIGS: usize = 1000;
/// Pairs of status and end that are counted for a configuration; further ones have status 0.
const MAX_OUTCOMES: usize = 64;
/// Times to the first byte that are kept of a model.
const MAX_TIMES: usize = 100;
/// Requests in the list of the last ones.
const MAX_RECENT: usize = 20;
/// The name of what has none.
pub const NONE: &str = "-";
/// The name of all that come after the last one with a name.
pub const OTHER: &str = "other";

/// Requests, and what they used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub requests: u64,
    pub tokens: Tokens,
    /// Requests that told their tokens.
    pub known: u64,
    /// Requests that may have used tokens and did not tell.
    pub unknown: u64,
    /// In US dollars.
    pub cost: f64,
    /// Requests that may have cost something and did not tell.
    pub cost_unknown: u64,
}

/// A name, and what was counted for it.
#[derive(Debug, Clone)]
pub struct Named<T> {
    pub name: Arc<str>,
    pub counts: T,
}

/// What was counted for a configuration.
#[derive(Debug, Clone, Default)]
pub struct ConfigCounts {
    pub tally: Tally,
    /// How often requests ended with this status in this way. Status 0: all further pairs.
    pub outcomes: Vec<((u16, ExchangeEnd), u64)>,
    /// Attempts by their verdict.
    pub attempts: Vec<(&'static str, u64)>,
    /// Attempts whose response said something bad about the credential.
    pub rejected: u64,
    /// What the upstream said last that the credential has spent, and may spend, in US dollars.
    pub spend: Option<f64>,
    pub budget: Option<f64>,
    /// Tokens and cost by model: an index into [`Counts::models`].
    pub models: Vec<(usize, (Tokens, f64))>,
}

/// What was counted for a model.
#[derive(Debug, Clone, Default)]
pub struct ModelCounts {
    pub tally: Tally,
    /// The last times to the first byte of good responses, in milliseconds.
    times: VecDeque<u32>,
}

/// What was counted for a client's program.
#[derive(Debug, Clone, Default)]
pub struct ClientCounts {
    pub tally: Tally,
}

/// All counts.
#[derive(Debug, Clone)]
pub struct Counts {
    pub total: Tally,
    /// Requests with more than one attempt.
    pub failed_over: u64,
    pub configs: Vec<Named<ConfigCounts>>,
    pub models: Vec<Named<ModelCounts>>,
    pub clients: Vec<Named<ClientCounts>>,
    pub minutes: Minutes,
    /// The newest last.
    pub recent: VecDeque<Ended>,
    pub first_byte: Histogram,
    pub duration: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            total: Tally::default(),
            failed_over: 0,
            configs: Vec::new(),
            models: Vec::new(),
            clients: Vec::new(),
            minutes: Minutes::default(),
            recent: VecDeque::with_capacity(MAX_RECENT + 1),
            first_byte: Histogram::new(&FIRST_BYTE),
            duration: Histogram::new(&DURATION),
        }
    }
}

impl Counts {
    /// Counts a request and its attempts. Returns what falls out of the list of the last ones.
    pub(super) fn add<'r>(
        &mut self,
        ended: Ended,
        attempts: impl Iterator<Item = Attempt<'r>>,
    ) -> Option<Ended> {
        let log = &ended.log;
        self.total.add(log);
        if let Some(time) = log.time_to_first_byte.filter(|_| log.attempts > 0) {
            self.first_byte.add(time);
        }
        self.duration.add(ended.duration);
        let has_failed_over = log.attempts > 1;
        self.failed_over += u64::from(has_failed_over);
        let minute = self.minutes.at(ended.at);
        minute.requests += 1;
        minute.errors += u64::from(log.is_error());
        minute.failed_over += u64::from(has_failed_over);
        let output = ended.tokens().map_or(0, |tokens| tokens.output);
        minute.output_tokens = minute.output_tokens.saturating_add(output);

        // Only what the upstream serves has a name, or any client could use the names up.
        let is_success = (200..300).contains(&log.status);
        let name = log.model.as_deref().unwrap_or(NONE);
        let model = index_of(&mut self.models, name, MAX_MODELS, is_success);
        let counts = &mut self.models[model].counts;
        counts.tally.add(log);
        if is_success {
            counts.add_time(ended.first_byte());
        }
        let name = log.agent.as_deref().unwrap_or(NONE);
        let client = index_of(&mut self.clients, name, MAX_CLIENTS, log.attempts > 0);
        self.clients[client].counts.tally.add(log);
        for attempt in attempts {
            let config = index_of(&mut self.configs, attempt.config, MAX_CONFIGS, true);
            let counts = &mut self.configs[config].counts;
            counts.rejected += u64::from(attempt.is_rejected);
            *entry(&mut counts.attempts, attempt.verdict) += 1;
        }
        let name = ended.config.as_deref().unwrap_or(NONE);
        let config = index_of(&mut self.configs, name, MAX_CONFIGS, true);
        self.configs[config].counts.add(log, model);

        // What the proxy itself rejects must not wash the others away, as in the log.
        if ended.log.is_rejection() {
            return Some(ended);
        }
        self.recent.push_back(ended);
        (self.recent.len() > MAX_RECENT)
            .then(|| self.recent.pop_front())
            .flatten()
    }
}

impl ConfigCounts {
    /// Counts a request that it has served, for a model by its index.
    fn add(&mut self, log: &AccessLog, model: usize) {
        self.tally.add(log);
        let outcome = (log.status, log.end);
        let is_known = self.outcomes.iter().any(|(known, _)| *known == outcome);
        let has_room = is_known || self.outcomes.len() < MAX_OUTCOMES;
        let outcome = if has_room { outcome } else { (0, log.end) };
        *entry(&mut self.outcomes, outcome) += 1;
        self.spend = log.spend.or(self.spend);
        self.budget = log.budget.or(self.budget);
        if let (Usage::None | Usage::Unknown, None) = (log.usage, log.cost) {
            return;
        }
        let (tokens, cost) = entry(&mut self.models, model);
        if let Usage::Known(used) = log.usage {
            *tokens = tokens.plus(used);
        }
        add(cost, log.cost.unwrap_or_default());
    }
}

impl Tally {
    fn add(&mut self, log: &AccessLog) {
        self.requests += 1;
        match log.usage {
            Usage::None => {}
            Usage::Unknown => self.unknown += 1,
            Usage::Known(tokens) => {
                self.known += 1;
                self.tokens = self.tokens.plus(tokens);
            }
        }
        match log.cost {
            Some(cost) => add(&mut self.cost, cost),
            None if log.usage != Usage::None => self.cost_unknown += 1,
            None => {}
        }
    }
}

impl ModelCounts {
    fn add_time(&mut self, time: Duration) {
        if self.times.len() == MAX_TIMES {
            self.times.pop_front();
        }
        let time = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.times.push_back(time);
    }

    /// Of the last times to the first byte, in milliseconds: half are at most so long, and 95 of 100.
    pub fn percentiles(&self) -> Option<(u32, u32)> {
        let mut times: Vec<u32> = self.times.iter().copied().collect();
        times.sort_unstable();
        // The nearest rank: the smallest time that so many of all do not exceed.
        let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1);
        Some((*at(50)?, *at(95)?))
    }
}

/// Adds an amount; the sum saturates, as those of tokens do.
fn add(sum: &mut f64, amount: f64) {
    *sum = (*sum + amount).min(f64::MAX);
}

/// The place of `name`, which becomes a new one if it `may` and there is room.
fn index_of<T: Default>(list: &mut Vec<Named<T>>, name: &str, most: usize, may: bool) -> usize {
    let position = |list: &[Named<T>], name: &str| list.iter().position(|one| *one.name == *name);
    if let Some(index) = position(list, name) {
        return index;
    }
    let has_name = name == NONE || (may && list.len() < most);
    let name = if has_name { name } else { OTHER };
    position(list, name).unwrap_or_else(|| {
        list.push(Named {
            name: name.into(),
            counts: T::default(),
        });
        list.len() - 1
    })
}

fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = list.iter().position(|(known, _)| *known == key);
    let index = index.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[index].1
}
