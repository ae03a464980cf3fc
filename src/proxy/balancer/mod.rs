//! Which configuration is used next, and which credentials rest.
//!
//! A state machine behind one mutex, with the clock passed in. No I/O happens under the lock, and the
//! guard never leaves this file. What a response means is decided in [`verdict`], how long a rest lasts
//! in [`health`].
//!
//! A *configuration* is a turn in the round-robin, a *credential* is what can fail: several
//! configurations may share one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod event;
pub mod health;
mod retry_after;
#[cfg(test)]
mod tests;
pub mod verdict;

use self::event::{Event, EventKind};
use self::health::{FORBIDDEN_COOLDOWN, Health, MODEL_COOLDOWN, ModelRest, Shared, millis};
use self::verdict::{Judgement, Verdict};
use crate::config::secrets::Configuration;

/// Chooses configurations. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    /// What times in [`Shared`] are counted from.
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

/// Guarded by one mutex, held for a choice or a verdict.
#[derive(Debug)]
struct State {
    /// In file order, at least one.
    entries: Vec<Entry>,
    /// The number of turns so far.
    turns: u64,
    credentials: Vec<Health>,
}

/// One turn in the round-robin.
#[derive(Debug)]
struct Entry {
    configuration: Arc<Configuration>,
    /// Index into `State::credentials`.
    credential: usize,
    /// The number of its last turn; 0: it has had none.
    last_turn: u64,
}

/// A configuration that was chosen for one attempt.
#[derive(Debug)]
pub struct Selection {
    pub configuration: Arc<Configuration>,
    pub sent_at: Instant,
    /// Whether an accepted response changes the credential's health.
    has_marks: bool,
    /// It was refused as busy itself, so that its end makes no place.
    was_busy: bool,
    probe: Option<Probe>,
    shared: Arc<Shared>,
}

impl Selection {
    /// Ends the probe of a failed credential; others may try it from now on.
    pub fn end_probe(&mut self) {
        self.probe = None;
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        if !self.was_busy {
            self.shared.end_busy();
        }
    }
}

/// Ends the probe of a credential when it is dropped.
#[derive(Debug)]
struct Probe(Arc<Shared>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.is_probed.store(false, Ordering::Relaxed);
    }
}

/// Who may be chosen for the next attempt.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'r> {
    /// The request's model, where it is known.
    pub model: Option<&'r str>,
    /// Credentials that rest are asked too, once no other one is left.
    pub asks_resting: bool,
    /// A failed credential is tried only where no other one is available: the request cannot be
    /// repeated with another.
    pub avoids_probe: bool,
}

impl Balancer {
    /// Starts with the first of `configurations`, all of them healthy.
    ///
    /// # Panics
    /// Without any configuration: the loader of the secrets file rejects that.
    pub fn new(configurations: &[Configuration]) -> Balancer {
        let mut state = State {
            entries: Vec::new(),
            turns: 0,
            credentials: Vec::new(),
        };
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
        selection.was_busy = verdict == Verdict::Busy;
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

impl State {
    fn select(
        &mut self,
        now: Instant,
        start: Instant,
        tried: &[Selection],
        wanted: Wanted<'_>,
    ) -> Option<Selection> {
        let model = wanted.model;
        let untried = |entry: &&Entry| !is_tried(tried, self.health(entry));
        let available = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| untried(entry))
            .filter(|(_, entry)| self.health(entry).is_available(model, now, start));
        let key = |(index, entry): &(usize, &Entry)| {
            let is_probe = wanted.avoids_probe && self.health(entry).is_failed();
            (is_probe, entry.last_turn, *index)
        };
        let chosen = available.min_by_key(key).map(|(index, _)| index);
        let resting = || {
            let is_first = tried.is_empty();
            let entries = self.entries.iter().enumerate();
            let entries = entries.filter(|(_, entry)| untried(entry));
            let entries =
                entries.filter(|(_, entry)| is_first || !self.health(entry).is_denied(model, now));
            let by_end = entries.min_by_key(|(index, entry)| {
                let health = self.health(entry);
                let until = health.rests_until(model, now, start);
                (health.is_denied(model, now), until, entry.last_turn, *index)
            });
            by_end.map(|(index, _)| index)
        };
        let chosen = match chosen {
            None if tried.is_empty() || wanted.asks_resting => resting()?,
            chosen => chosen?,
        };
        Some(self.take_turn(chosen, now))
    }

    fn take_turn(&mut self, index: usize, now: Instant) -> Selection {
        self.turns += 1;
        let turn = self.turns;
        let entry = &mut self.entries[index];
        entry.last_turn = turn;
        let health = &self.credentials[entry.credential];
        let shared = Arc::clone(&health.shared);
        let probe = health.is_failed().then(|| {
            shared.is_probed.store(true, Ordering::Relaxed);
            Probe(Arc::clone(&shared))
        });
        Selection {
            configuration: Arc::clone(&entry.configuration),
            sent_at: now,
            has_marks: health.has_marks(),
            was_busy: false,
            probe,
            shared,
        }
    }

    fn health(&self, entry: &Entry) -> &Health {
        &self.credentials[entry.credential]
    }

    /// The health of the credential of `selection`, unless a reload has removed it.
    fn health_of(&mut self, selection: &Selection) -> Option<&mut Health> {
        self.credentials
            .iter_mut()
            .find(|health| health.credential == selection.configuration.credential)
    }

    fn record(
        &mut self,
        selection: &Selection,
        judgement: Judgement,
        model: Option<&str>,
        (now, start): (Instant, Instant),
    ) -> Option<Event> {
        let sent_at = selection.sent_at;
        let health = self.health_of(selection)?;
        let verdict = judgement.verdict;
        let is_restored =
            judgement.is_accepted && health.accept(model, !verdict.is_limit(), sent_at, now);
        let kind = match (verdict, model) {
            (Verdict::Dead, _) => health.fail(sent_at, now).then_some(EventKind::Failed),
            (Verdict::Budget, _) => health
                .spend_budget(sent_at, now)
                .map(|rest| EventKind::BudgetSpent { rest }),
            (Verdict::Busy, _) => {
                health.be_busy(now, start);
                Some(EventKind::Busy)
            }
            (Verdict::Model { marks: true }, Some(model)) => health
                .rest_for_model(model, ModelRest::Denied, MODEL_COOLDOWN, sent_at, now)
                .map(|rest| EventKind::ModelDenied { rest }),
            (
                Verdict::Limit {
                    rest,
                    of_model: true,
                },
                Some(model),
            ) => health
                .rest_for_model(model, ModelRest::Limited, rest, sent_at, now)
                .map(|rest| EventKind::ModelLimited { rest }),
            (
                Verdict::Limit {
                    rest,
                    of_model: false,
                },
                _,
            ) => health
                .limit(rest, sent_at, now)
                .map(|rest| EventKind::Limited { rest }),
            _ => None,
        };
        let kind = kind.or(is_restored.then_some(EventKind::Restored))?;
        Some(self.event(selection, kind, model, (now, start)))
    }

    fn prove(
        &mut self,
        selection: &Selection,
        verdict: Verdict,
        model: Option<&str>,
        (now, start): (Instant, Instant),
    ) -> Option<Event> {
        let sent_at = selection.sent_at;
        let health = self.health_of(selection)?;
        let kind = match (verdict, model) {
            (Verdict::Credential, _) => health.fail(sent_at, now).then_some(EventKind::Failed),
            (Verdict::Forbidden, Some(model)) => health
                .rest_for_model(
                    model,
                    ModelRest::Forbidden,
                    FORBIDDEN_COOLDOWN,
                    sent_at,
                    now,
                )
                .map(|rest| EventKind::ModelDenied { rest }),
            _ => None,
        };
        Some(self.event(selection, kind?, model, (now, start)))
    }

    fn replace(&mut self, configurations: &[Configuration]) {
        let mut old_credentials = std::mem::take(&mut self.credentials);
        let mut old_entries = std::mem::take(&mut self.entries);
        for configuration in configurations {
            let is_it = |health: &Health| health.credential == configuration.credential;
            let credential = match self.credentials.iter().position(is_it) {
                Some(index) => index,
                None => {
                    let kept = old_credentials.iter().position(is_it);
                    let kept = kept.map(|index| old_credentials.swap_remove(index));
                    let new = || Health::new(Arc::clone(&configuration.credential));
                    self.credentials.push(kept.unwrap_or_else(new));
                    self.credentials.len() - 1
                }
            };
            let is_same = |entry: &Entry| {
                entry.configuration.name == configuration.name
                    && entry.configuration.credential == configuration.credential
            };
            let old = old_entries.iter().position(is_same);
            self.entries.push(Entry {
                configuration: Arc::new(configuration.clone()),
                credential,
                last_turn: old.map_or(0, |index| old_entries.remove(index).last_turn),
            });
        }
        assert!(
            !self.entries.is_empty(),
            "there is at least one configuration"
        );
    }

    /// Configurations that are well: they do not rest, and have not failed since they were accepted.
    fn remaining(&self, now: Instant, start: Instant) -> usize {
        let is_well = |entry: &&Entry| {
            let health = self.health(entry);
            !health.is_failed() && health.rests_until(None, now, start).is_none()
        };
        self.entries.iter().filter(is_well).count()
    }

    fn event(
        &self,
        selection: &Selection,
        kind: EventKind,
        model: Option<&str>,
        (now, start): (Instant, Instant),
    ) -> Event {
        Event {
            name: Arc::clone(&selection.configuration.name),
            model: model.map(Into::into),
            kind,
            remaining: self.remaining(now, start),
            total: self.entries.len(),
        }
    }
}

fn is_tried(tried: &[Selection], health: &Health) -> bool {
    tried
        .iter()
        .any(|tried| tried.configuration.credential == health.credential)
}
