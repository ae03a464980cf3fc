//! Which configuration is used next, and which ones rest.
//!
//! A state machine behind one mutex, with the clock passed in. No I/O happens under the lock, and the
//! guard never leaves this file. A method that changes a credential's health returns an [`Event`] for the
//! log; which status changes what is the caller's rule.
//!
//! A *configuration* is a turn in the round-robin, a *credential* is what can fail: several
//! configurations can share one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::secrets::{Configuration, Credential};

/// How long a failed credential rests the first time; each repeat doubles it.
const FIRST_COOLDOWN: Duration = Duration::from_secs(60);
/// The longest rest of a failed credential.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(15 * 60);
/// A rest that grows by less than this is not logged again.
const WORTH_A_LINE: Duration = Duration::from_millis(500);

/// Chooses configurations. Shared by all workers.
#[derive(Debug)]
pub struct Balancer(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In file order.
    entries: Vec<Entry>,
    /// The turn that is looked at first.
    next: usize,
    credentials: Vec<Health>,
}

#[derive(Debug)]
struct Entry {
    configuration: Arc<Configuration>,
    /// Index into `State::credentials`.
    credential: usize,
}

/// What is known about a credential.
#[derive(Debug)]
struct Health {
    credential: Arc<Credential>,
    /// Failures in a row; 0: healthy.
    failures: u32,
    /// Changes whenever the credential is marked or restored: a verdict on a request that was sent
    /// before the change says nothing new.
    epoch: u64,
    failed_until: Option<Instant>,
    limited_until: Option<Instant>,
    /// Up to when the log knows that it is limited.
    announced_until: Option<Instant>,
    /// One request tries whether it works again.
    being_probed: Arc<AtomicBool>,
}

/// A configuration that was chosen for one attempt.
#[derive(Debug)]
pub struct Selection {
    pub configuration: Arc<Configuration>,
    epoch: u64,
    /// An attempt that is accepted restores the credential.
    pub is_probe: bool,
    _trial: Option<Probe>,
}

/// Ends the probe of a credential when it is dropped.
#[derive(Debug)]
struct Probe(Arc<AtomicBool>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Whether a rest is logged now or by a later call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    Now,
    Later,
}

/// A change of a configuration's health, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: Arc<str>,
    pub kind: EventKind,
    /// Configurations that are available afterwards.
    pub remaining: usize,
    pub total: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    Failed,
    Limited { rest: Duration },
    Restored,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            name,
            kind,
            remaining,
            total,
        } = self;
        write!(formatter, "Configuration '{name}' ")?;
        match kind {
            EventKind::Failed => write!(formatter, "marked as failed.")?,
            EventKind::Limited { rest } => {
                write!(
                    formatter,
                    "rate limited, resting {} s.",
                    rest.as_millis().div_ceil(1000)
                )?;
            }
            EventKind::Restored => write!(formatter, "restored.")?,
        }
        write!(formatter, " Remaining: {remaining}/{total}")
    }
}

impl Balancer {
    /// Starts with the first of `configurations`, all of them healthy.
    ///
    /// # Panics
    /// Without any configuration: the loader of the secrets file rejects that.
    pub fn new(configurations: &[Configuration]) -> Balancer {
        let mut state = State {
            entries: Vec::new(),
            next: 0,
            credentials: Vec::new(),
        };
        state.replace(configurations);
        Balancer(Mutex::new(state))
    }

    /// The next available configuration whose credential is not in `tried`.
    ///
    /// For a first attempt (`tried` is empty) there is always one: when none is available, the one
    /// whose rest ends first.
    pub fn selection<'p>(
        &self,
        now: Instant,
        tried: impl IntoIterator<Item = &'p Selection> + Clone,
    ) -> Option<Selection> {
        self.lock().selection(now, tried)
    }

    /// An attempt with `selection` got a response that only an accepted credential gets.
    pub fn accepted(&self, selection: &Selection, now: Instant) -> Option<Event> {
        self.lock().restore(selection, now)
    }

    /// `selection`'s credential was rejected, and another one was accepted for the same request.
    pub fn failed(&self, selection: &Selection, now: Instant) -> Option<Event> {
        self.lock().fail(selection, now)
    }

    /// `selection`'s credential has reached a limit of the upstream's and rests at least for `rest`.
    pub fn limited(
        &self,
        selection: &Selection,
        rest: Duration,
        now: Instant,
        announce: Announce,
    ) -> Option<Event> {
        self.lock().limit(selection, rest, now, announce)
    }

    /// Replaces the configurations. Credentials that stay keep their health.
    pub fn replace(&self, configurations: &[Configuration]) {
        self.lock().replace(configurations);
    }

    /// How many configurations are available, and how many there are.
    pub fn remaining(&self, now: Instant) -> (usize, usize) {
        self.lock().remaining(now)
    }

    /// How many configurations a request could be given, those included that wait to be tried again,
    /// and how many there are.
    pub fn available(&self, now: Instant) -> (usize, usize) {
        let state = self.lock();
        let is_cooled_down = |entry: &&Entry| {
            let health = &state.credentials[entry.credential];
            health.cooldown_until().is_none_or(|until| until <= now)
        };
        (
            state.entries.iter().filter(is_cooled_down).count(),
            state.entries.len(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock would be a bug of this file; the state is whole in any case,
        // since nothing here changes it in several steps that could be interrupted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn selection<'p>(
        &mut self,
        now: Instant,
        tried: impl IntoIterator<Item = &'p Selection> + Clone,
    ) -> Option<Selection> {
        let order = (0..self.entries.len()).map(|step| (self.next + step) % self.entries.len());
        let is_fresh = |entry: usize| {
            let credential = &self.credentials[self.entries[entry].credential].credential;
            let mut tried = tried.clone().into_iter();
            tried.all(|selection| selection.configuration.credential != *credential)
        };
        let available = |entry: usize| self.health(entry).is_available(now);
        let entry = order
            .clone()
            .find(|&entry| available(entry) && is_fresh(entry));
        let entry = match entry {
            Some(entry) => entry,
            // When every credential rests, use the one whose rest ends first: the upstream may accept it.
            None if tried.clone().into_iter().next().is_none() => {
                order.min_by_key(|&entry| self.health(entry).cooldown_until())?
            }
            None => return None,
        };
        self.next = (entry + 1) % self.entries.len();
        let health = self.health(entry);
        let is_probe = health.failures > 0;
        let probe = is_probe.then(|| {
            health.being_probed.store(true, Ordering::Relaxed);
            Probe(Arc::clone(&health.being_probed))
        });
        Some(Selection {
            configuration: Arc::clone(&self.entries[entry].configuration),
            epoch: health.epoch,
            is_probe,
            _trial: probe,
        })
    }

    fn health(&self, entry: usize) -> &Health {
        &self.credentials[self.entries[entry].credential]
    }

    /// The health of the credential of `selection`, unless a reload has removed it.
    fn health_of(&mut self, selection: &Selection) -> Option<&mut Health> {
        self.credentials
            .iter_mut()
            .find(|health| health.credential == selection.configuration.credential)
    }

    fn fail(&mut self, selection: &Selection, now: Instant) -> Option<Event> {
        let health = self
            .health_of(selection)
            .filter(|health| health.epoch == selection.epoch)?;
        let rest = FIRST_COOLDOWN
            .saturating_mul(2u32.saturating_pow(health.failures))
            .min(LONGEST_COOLDOWN);
        health.failures = health.failures.saturating_add(1);
        health.epoch += 1;
        health.failed_until = Some(now + rest);
        Some(self.event(selection, EventKind::Failed, now))
    }

    fn restore(&mut self, selection: &Selection, now: Instant) -> Option<Event> {
        let health = self
            .health_of(selection)
            .filter(|health| health.epoch == selection.epoch)?;
        if health.failures == 0 {
            return None;
        }
        health.failures = 0;
        health.epoch += 1;
        health.failed_until = None;
        Some(self.event(selection, EventKind::Restored, now))
    }

    fn limit(
        &mut self,
        selection: &Selection,
        rest: Duration,
        now: Instant,
        announce: Announce,
    ) -> Option<Event> {
        let health = self.health_of(selection)?;
        let until = health.limited_until.max(Some(now + rest));
        health.limited_until = until;
        let known = health.announced_until.filter(|known| *known > now);
        let is_news = known.is_none_or(|known| until > Some(known + WORTH_A_LINE));
        if announce == Announce::Later || !is_news {
            return None;
        }
        health.announced_until = until;
        let rest = until.map_or(rest, |until| until.saturating_duration_since(now));
        Some(self.event(selection, EventKind::Limited { rest }, now))
    }

    fn replace(&mut self, configurations: &[Configuration]) {
        let mut old = std::mem::take(&mut self.credentials);
        self.entries.clear();
        for configuration in configurations {
            let is_it = |health: &Health| health.credential == configuration.credential;
            let credential = match self.credentials.iter().position(is_it) {
                Some(index) => index,
                None => {
                    let kept = old
                        .iter()
                        .position(is_it)
                        .map(|index| old.swap_remove(index));
                    let new = || Health::new(Arc::clone(&configuration.credential));
                    self.credentials.push(kept.unwrap_or_else(new));
                    self.credentials.len() - 1
                }
            };
            self.entries.push(Entry {
                configuration: Arc::new(configuration.clone()),
                credential,
            });
        }
        assert!(
            !self.entries.is_empty(),
            "there is at least one configuration"
        );
        self.next %= self.entries.len();
    }

    fn remaining(&self, now: Instant) -> (usize, usize) {
        let is_well = |entry: &&Entry| {
            let health = &self.credentials[entry.credential];
            health.failures == 0 && health.cooldown_until().is_none_or(|until| until <= now)
        };
        (
            self.entries.iter().filter(is_well).count(),
            self.entries.len(),
        )
    }

    fn event(&self, selection: &Selection, kind: EventKind, now: Instant) -> Event {
        let (remaining, total) = self.remaining(now);
        Event {
            name: Arc::clone(&selection.configuration.name),
            kind,
            remaining,
            total,
        }
    }
}

impl Health {
    fn new(credential: Arc<Credential>) -> Health {
        Health {
            credential,
            failures: 0,
            epoch: 0,
            failed_until: None,
            limited_until: None,
            announced_until: None,
            being_probed: Arc::new(AtomicBool::new(false)),
        }
    }

    fn cooldown_until(&self) -> Option<Instant> {
        self.failed_until.max(self.limited_until)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.cooldown_until().is_none_or(|until| until <= now)
            && !(self.failures > 0 && self.being_probed.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
