//! How each configuration is at one moment, for those who look. Pure.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::health::{Health, ModelRest, Rest};

/// What a configuration does, the best state first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryState {
    Available,
    Busy,
    /// It failed, its rest is over, and a request may try it or does.
    Trying,
    Limited,
    Budget,
    Failed,
}

/// How a configuration is.
#[derive(Debug, Clone)]
pub struct EntryStatus {
    pub name: Arc<str>,
    pub state: EntryState,
    /// The status and the meaning of the response that the rest began with.
    pub reason: Option<(u16, &'static str)>,
    /// How long ago the rest began.
    pub since: Option<Duration>,
    /// How long it still lasts.
    pub rest: Option<Duration>,
    pub in_flight: usize,
    pub models: Vec<ModelStatus>,
}

/// A model that a configuration is passed over for.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    pub model: Box<str>,
    /// `denied` or `limited`.
    pub state: &'static str,
    pub rest: Duration,
}

impl EntryState {
    pub fn as_str(self) -> &'static str {
        match self {
            EntryState::Available => "available",
            EntryState::Busy => "busy",
            EntryState::Trying => "trying",
            EntryState::Limited => "limited",
            EntryState::Budget => "budget",
            EntryState::Failed => "failed",
        }
    }
}

impl EntryStatus {
    pub(super) fn of(
        entry: (&Arc<str>, usize),
        health: &Health,
        (now, start): (Instant, Instant),
    ) -> EntryStatus {
        let (state, rest) = state(health, now, start);
        let models = health.models.iter();
        let models = models.filter(|(_, _, rest)| rest.until > now);
        EntryStatus {
            name: Arc::clone(entry.0),
            state,
            reason: rest.map(|rest| rest.reason),
            since: rest.map(|rest| now.saturating_duration_since(rest.began)),
            rest: rest.and_then(|rest| rest.until.checked_duration_since(now)),
            in_flight: entry.1,
            models: models
                .map(|(model, why, rest)| ModelStatus {
                    model: model.clone(),
                    state: match why {
                        ModelRest::Denied | ModelRest::Forbidden => "denied",
                        ModelRest::Limited => "limited",
                    },
                    rest: rest.until.saturating_duration_since(now),
                })
                .collect(),
        }
    }
}

fn state(health: &Health, now: Instant, start: Instant) -> (EntryState, Option<Rest>) {
    let running = |rest: Option<Rest>| rest.filter(|rest| rest.until > now);
    if let Some(failed) = health.failed.filter(|_| health.is_failed()) {
        let is_probed = health.shared.is_probed.load(Ordering::Relaxed);
        return match running(Some(failed)) {
            Some(_) if !is_probed => (EntryState::Failed, Some(failed)),
            _ => (EntryState::Trying, Some(failed)),
        };
    }
    if let Some(budget) = running(health.budget) {
        return (EntryState::Budget, Some(budget));
    }
    if let Some(limited) = running(health.limited) {
        return (EntryState::Limited, Some(limited));
    }
    match health.busy_until(start).filter(|until| *until > now) {
        Some(until) => {
            let rest = Rest {
                began: now,
                until,
                reason: (429, "too many requests in flight"),
            };
            (EntryState::Busy, Some(rest))
        }
        None => (EntryState::Available, None),
    }
}
