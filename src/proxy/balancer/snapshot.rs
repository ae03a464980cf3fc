//! How each configuration is at one moment, for those who look. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Printable;
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
    pub model: String,
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
                    model: Printable(model).to_string(),
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

/// The state by the rest that ends last, which is the one that counts.
fn state(health: &Health, now: Instant, start: Instant) -> (EntryState, Option<Rest>) {
    let busy = health.busy_until(start).map(|until| Rest {
        began: now,
        until,
        reason: (429, "too many requests in flight"),
    });
    let rests = [
        (EntryState::Busy, busy),
        (EntryState::Limited, health.limited),
        (EntryState::Budget, health.budget),
        (EntryState::Failed, health.failed),
    ];
    let running = rests
        .into_iter()
        .filter_map(|(state, rest)| Some((state, rest.filter(|rest| rest.until > now)?)));
    match running.max_by_key(|(_, rest)| rest.until) {
        Some((state, rest)) => (state, Some(rest)),
        // It is tried by the next request, or is being tried.
        None if health.is_failed() => (EntryState::Trying, health.failed),
        None => (EntryState::Available, None),
    }
}
