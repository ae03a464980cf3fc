//! Which configuration is used next, and which credentials rest.
//!
//! A state machine behind one mutex, with the clock passed in. No I/O happens under the lock, and the
//! guard never leaves this file. What a response means is decided in [`verdict`], how long a rest lasts
//! in [`health`].
//!
//! A *configuration* is a turn in the round-robin, a *credential* is what can fail: several
//! configurations may share one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod event;
pub mod health;
mod retry_after;
pub mod selection;
pub mod snapshot;
mod state;
#[cfg(test)]
mod tests;
pub mod verdict;

use self::event::Event;
use self::health::{Health, millis};
use self::selection::{Selection, Wanted, is_tried};
use self::snapshot::EntryStatus;
use self::state::{Entry, State};
use self::verdict::{Judgement, Verdict};
use crate::config::secrets::Configuration;

/// Chooses configurations. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    /// What times in [`health::Shared`] are counted from.
    start: Instant,
    state: Mutex<State>,
    /// Until when some credential rests for a model, in milliseconds since `start`: until then a
    /// request's model matters.
    model_rests_until_ms: AtomicU64,
    /// The last response that said anything about a credential was a rejection.
    is_degraded: AtomicBool,
    /// Reloads so far.
    generation: AtomicU64,
}

impl Balancer {
    /// Starts with the first of `configurations`, all of them healthy.
    ///
    /// # Panics
    /// Without any configuration: the loader of the secrets file rejects that.
    pub fn new(configurations: &[Configuration]) -> Balancer {
        let mut state = State::default();
        state.replace(configurations);
        Balancer {
            start: Instant::now(),
            state: Mutex::new(state),
            model_rests_until_ms: AtomicU64::new(0),
            is_degraded: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// Chooses the configuration for the next attempt: of those available the one whose last turn is
    /// longest ago, and whose credential is not among `tried`.
    ///
    /// For a first attempt there always is one: the proxy never rejects on its own account what the
    /// upstream might accept.
    pub fn select(
        &self,
        now: Instant,
        tried: &[Selection],
        wanted: Wanted<'_>,
    ) -> Option<Selection> {
        self.lock().select(now, self.start, tried, wanted)
    }

    /// Whether some credential rests for a model, so that a request's model matters.
    pub fn has_model_rests(&self, now: Instant) -> bool {
        let until = self.model_rests_until_ms.load(Ordering::Relaxed);
        until != 0 && until > millis(now, self.start)
    }

    /// Takes note of the response to an attempt. What needs proof is left to [`Balancer::prove`].
    pub fn record(
        &self,
        selection: &mut Selection,
        judgement: Judgement,
        model: Option<&str>,
        now: Instant,
    ) -> Option<Event> {
        let Judgement {
            verdict,
            is_accepted,
        } = judgement;
        if is_accepted == self.is_degraded.load(Ordering::Relaxed)
            && (is_accepted || verdict.concerns_credential())
        {
            self.is_degraded.store(!is_accepted, Ordering::Relaxed);
        }
        selection.judgement = Some(judgement);
        let changes = match verdict {
            Verdict::Request | Verdict::Provider => is_accepted && selection.has_marks,
            Verdict::Credential | Verdict::Forbidden => false,
            _ => true,
        };
        if !changes {
            return None;
        }
        let mut state = self.lock();
        let event = state.record(selection, judgement, model, (now, self.start));
        self.note_model_rests(&state);
        event
    }

    /// Marks the credential of a rejected attempt, now that another one was accepted for the same
    /// request. Otherwise the request itself may be at fault, and one bad request must not take every
    /// credential out of rotation.
    pub fn prove(
        &self,
        selection: &Selection,
        verdict: Verdict,
        model: Option<&str>,
        now: Instant,
    ) -> Option<Event> {
        let mut state = self.lock();
        let event = state.prove(selection, verdict, model, (now, self.start));
        self.note_model_rests(&state);
        event
    }

    /// Replaces the configurations. Credentials that stay keep their health, entries their turns.
    pub fn replace(&self, configurations: &[Configuration]) {
        self.lock().replace(configurations);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes with each reload.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Ends the rests for limits, budgets and models.
    pub fn end_rests(&self) {
        let mut state = self.lock();
        state.credentials.iter_mut().for_each(Health::end_rests);
        self.note_model_rests(&state);
    }

    /// How many configurations a request could be given, those included that wait to be tried again,
    /// and how many there are.
    pub fn available(&self, now: Instant) -> (usize, usize) {
        let state = self.lock();
        let is_available = |entry: &&Entry| {
            state
                .health(entry)
                .rests_until(None, now, self.start)
                .is_none()
        };
        (
            state.entries.iter().filter(is_available).count(),
            state.entries.len(),
        )
    }

    /// How each configuration is, in the order of the file.
    pub fn snapshot(&self, now: Instant) -> Vec<EntryStatus> {
        let state = self.lock();
        let entries = state.entries.iter();
        entries
            .map(|entry| {
                let in_flight = entry.in_flight.load(Ordering::Relaxed);
                let name = &entry.configuration.name;
                EntryStatus::of((name, in_flight), state.health(entry), (now, self.start))
            })
            .collect()
    }

    /// Whether no credential was accepted lately.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Relaxed)
    }

    /// How long until the first credential that may have `model` is available; zero where one is.
    pub fn first_available_in(&self, model: Option<&str>, now: Instant) -> Duration {
        let state = self.lock();
        let untils = state
            .credentials
            .iter()
            .filter(|health| !health.is_denied(model, now))
            .map(|health| health.rests_until(model, now, self.start));
        let first = untils.min().flatten();
        first.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// As [`Balancer::first_available_in`], where every credential that may have `model` rests because
    /// of a limit or is busy; `None` where that is not so.
    pub fn first_limit_ends_in(&self, model: Option<&str>, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let mut candidates = state
            .credentials
            .iter()
            .filter(|health| !health.is_denied(model, now))
            .peekable();
        candidates.peek()?;
        let is_limited = |health: &&Health| health.is_only_limited(model, now, self.start);
        if !candidates.clone().all(|health| is_limited(&health)) {
            return None;
        }
        let first = candidates.filter_map(|health| health.rests_until(model, now, self.start));
        Some(first.min()?.saturating_duration_since(now))
    }

    /// Whether every credential of the file was tried or may not use `model`.
    pub fn is_exhausted(&self, tried: &[Selection], model: Option<&str>, now: Instant) -> bool {
        self.lock().credentials.iter().all(|health| {
            is_tried(tried, health) || (model.is_some() && health.is_denied(model, now))
        })
    }

    fn note_model_rests(&self, state: &State) {
        let untils = state
            .credentials
            .iter()
            .filter_map(Health::model_rests_until);
        let until = untils.max().map_or(0, |until| millis(until, self.start));
        self.model_rests_until_ms.store(until, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock would be a bug of this directory; the state is whole in any case,
        // since nothing here changes it in several steps that could be interrupted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
