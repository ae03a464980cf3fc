//! What is known about one credential: which rests it has, and until when. Pure; the clock is passed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::verdict::Verdict;
use crate::config::secrets::Credential;

/// How long a failed credential rests the first time; each repeat doubles it.
const FIRST_COOLDOWN: Duration = Duration::from_secs(60);
/// The longest rest of a failed credential.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(15 * 60);
/// How long a credential rests whose budget is spent; each repeat doubles it.
const FIRST_BUDGET_COOLDOWN: Duration = Duration::from_secs(5 * 60);
/// The longest rest for a budget.
const LONGEST_BUDGET_COOLDOWN: Duration = Duration::from_secs(60 * 60);
/// How long a credential is passed over for a model that it may not use.
pub const MODEL_COOLDOWN: Duration = Duration::from_secs(10 * 60);
/// How long it is passed over for a model after a rejection that is not understood.
pub const FORBIDDEN_COOLDOWN: Duration = Duration::from_secs(60);
/// How long a busy credential rests at most.
const BUSY_COOLDOWN: Duration = Duration::from_secs(1);
/// The most rests for models that a credential has; the one that ends first goes.
const MAX_MODEL_RESTS: usize = 64;

/// A rest, and when it began: a response to an earlier request says nothing about it.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    pub began: Instant,
    pub until: Instant,
    /// The status and the meaning of the response that it began with.
    pub reason: (u16, &'static str),
}

/// Why a credential rests for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelRest {
    /// It may not use the model.
    Denied,
    /// Its limit for the model is reached.
    Limited,
    /// It was rejected for an unknown reason.
    Forbidden,
}

/// The health of a credential.
#[derive(Debug)]
pub struct Health {
    pub credential: Arc<Credential>,
    /// Failures in a row; 0: it has not failed.
    failures: u32,
    pub failed: Option<Rest>,
    /// When an accepted response ended the last failure.
    restored_at: Option<Instant>,
    pub limited: Option<Rest>,
    /// Budget responses in a row.
    budget_repeats: u32,
    pub budget: Option<Rest>,
    pub models: Vec<(Box<str>, ModelRest, Rest)>,
    pub shared: Arc<Shared>,
}

/// What requests in flight share with the health of their credential, readable without the lock.
#[derive(Debug, Default)]
pub struct Shared {
    /// A request tries whether the failed credential works again.
    pub is_probed: AtomicBool,
    /// Until when it is busy, in milliseconds since the balancer's start; 0: it is not.
    busy_until_ms: AtomicU64,
}

impl Shared {
    /// A request that was not itself rejected as busy has ended: there is a place again.
    pub fn end_busy(&self) {
        if self.busy_until_ms.load(Ordering::Relaxed) != 0 {
            self.busy_until_ms.store(0, Ordering::Relaxed);
        }
    }
}

impl Health {
    pub fn new(credential: Arc<Credential>) -> Health {
        Health {
            credential,
            failures: 0,
            failed: None,
            restored_at: None,
            limited: None,
            budget_repeats: 0,
            budget: None,
            models: Vec::new(),
            shared: Arc::default(),
        }
    }

    /// Marks it as failed. False: it rests already, or was marked or restored after `sent_at`.
    pub fn fail(&mut self, sent_at: Instant, now: Instant) -> bool {
        let is_news = self.restored_at.is_none_or(|restored| sent_at > restored);
        if !is_news || !may_begin(self.failed, sent_at, now) {
            return false;
        }
        let cooldown = doubled(FIRST_COOLDOWN, self.failures, LONGEST_COOLDOWN);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(rest(now, cooldown));
        true
    }

    /// Lets it rest for a rate limit. Returns the rest's length where it begins.
    pub fn limit(&mut self, length: Duration, sent_at: Instant, now: Instant) -> Option<Duration> {
        renew(&mut self.limited, length, sent_at, now)
    }

    /// Lets it rest for a spent budget. Returns the rest's length where it begins.
    pub fn spend_budget(&mut self, sent_at: Instant, now: Instant) -> Option<Duration> {
        if !may_begin(self.budget, sent_at, now) {
            return None;
        }
        let cooldown = doubled(
            FIRST_BUDGET_COOLDOWN,
            self.budget_repeats,
            LONGEST_BUDGET_COOLDOWN,
        );
        self.budget_repeats = self.budget_repeats.saturating_add(1);
        self.budget = Some(rest(now, cooldown));
        Some(cooldown)
    }

    /// Lets it rest until a request in flight with it ends, but not for long.
    pub fn be_busy(&mut self, now: Instant, start: Instant) {
        let until = millis(now + BUSY_COOLDOWN, start);
        self.shared.busy_until_ms.store(until, Ordering::Relaxed);
    }

    /// Lets it rest for a model. Returns the rest's length where it begins.
    pub fn rest_for_model(
        &mut self,
        model: &str,
        why: ModelRest,
        length: Duration,
        sent_at: Instant,
        now: Instant,
    ) -> Option<Duration> {
        self.models.retain(|(_, _, rest)| rest.until > now);
        let is_it =
            |(name, kind, _): &&mut (Box<str>, ModelRest, Rest)| **name == *model && *kind == why;
        if let Some((_, _, known)) = self.models.iter_mut().find(is_it) {
            let mut known_rest = Some(*known);
            renew(&mut known_rest, length, sent_at, now);
            *known = known_rest.unwrap_or(*known);
            return None;
        }
        if self.models.len() == MAX_MODEL_RESTS {
            let rests = self.models.iter().enumerate();
            let first = rests.min_by_key(|(_, (_, _, rest))| rest.until);
            let first = first.map_or(0, |(index, _)| index);
            self.models.swap_remove(first);
        }
        self.models.push((model.into(), why, rest(now, length)));
        Some(length)
    }

    /// An accepted response: restores a failed credential and, where `ends_limits`, ends the rests for
    /// limits, budgets and `model` that began before `sent_at`. True: it was failed.
    pub fn accept(
        &mut self,
        model: Option<&str>,
        ends_limits: bool,
        sent_at: Instant,
        now: Instant,
    ) -> bool {
        let is_over = |rest: &Rest| rest.began < sent_at;
        let was_failed = self.failures > 0 && self.failed.is_none_or(|rest| is_over(&rest));
        if was_failed {
            self.failures = 0;
            self.failed = None;
            self.restored_at = Some(now);
        }
        if ends_limits {
            self.limited = self.limited.filter(|rest| !is_over(rest));
            self.budget = self.budget.filter(|rest| !is_over(rest));
            if self.budget.is_none() {
                self.budget_repeats = 0;
            }
            self.models
                .retain(|(name, _, rest)| model != Some(&**name) || !is_over(rest));
        }
        was_failed
    }

    /// Notes what the response with this status said that a rest has begun with.
    pub fn note_reason(&mut self, verdict: Verdict, status: u16) {
        let (rest, meaning) = match verdict {
            Verdict::Dead => (&mut self.failed, "expired or deleted"),
            Verdict::Credential => (&mut self.failed, "rejected"),
            Verdict::Limit { .. } => (&mut self.limited, "rate limit"),
            Verdict::Budget => (&mut self.budget, "budget spent"),
            _ => return,
        };
        if let Some(rest) = rest {
            rest.reason = (status, meaning);
        }
    }

    /// Ends the rests for limits, budgets and models, not that of a failed credential.
    pub fn end_rests(&mut self) {
        self.limited = None;
        self.budget = None;
        self.models.clear();
        self.shared.end_busy();
    }

    /// Whether an accepted response would change anything.
    pub fn has_marks(&self) -> bool {
        self.failures > 0
            || self.limited.is_some()
            || self.budget.is_some()
            || self.budget_repeats > 0
            || !self.models.is_empty()
    }

    /// It has failed and not been accepted since; one request at a time tries it.
    pub fn is_failed(&self) -> bool {
        self.failures > 0
    }

    /// Whether it may not use `model`, as far as is known.
    pub fn is_denied(&self, model: Option<&str>, now: Instant) -> bool {
        self.models.iter().any(|(name, why, rest)| {
            *why == ModelRest::Denied && model == Some(&**name) && rest.until > now
        })
    }

    /// When the last of the rests ends that a request for `model` meets; `None`: there is none.
    pub fn rests_until(
        &self,
        model: Option<&str>,
        now: Instant,
        start: Instant,
    ) -> Option<Instant> {
        let for_model = self
            .models
            .iter()
            .filter(|(name, _, _)| model == Some(&**name));
        let rests = [self.failed, self.limited, self.budget]
            .into_iter()
            .flatten();
        rests
            .chain(for_model.map(|(_, _, rest)| *rest))
            .map(|rest| rest.until)
            .chain(self.busy_until(start))
            .filter(|until| *until > now)
            .max()
    }

    /// Whether all that keeps it from serving `model` is a limit, or that it is busy.
    pub fn is_only_limited(&self, model: Option<&str>, now: Instant, start: Instant) -> bool {
        let is_over = |rest: Option<Rest>| rest.is_none_or(|rest| rest.until <= now);
        let is_blocked = self.models.iter().any(|(name, why, rest)| {
            *why != ModelRest::Limited && model == Some(&**name) && rest.until > now
        });
        let rests = self.rests_until(model, now, start).is_some();
        rests && is_over(self.failed) && is_over(self.budget) && !is_blocked && self.failures == 0
    }

    /// Whether a request for `model` may be sent with it.
    pub fn is_available(&self, model: Option<&str>, now: Instant, start: Instant) -> bool {
        self.rests_until(model, now, start).is_none()
            && !(self.failures > 0 && self.shared.is_probed.load(Ordering::Relaxed))
    }

    /// Until when a rest for any model lasts.
    pub fn model_rests_until(&self) -> Option<Instant> {
        self.models.iter().map(|(_, _, rest)| rest.until).max()
    }

    pub fn busy_until(&self, start: Instant) -> Option<Instant> {
        match self.shared.busy_until_ms.load(Ordering::Relaxed) {
            0 => None,
            until => Some(start + Duration::from_millis(until)),
        }
    }
}

/// Milliseconds from `start` to `at`.
pub fn millis(at: Instant, start: Instant) -> u64 {
    let since = at.saturating_duration_since(start).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

fn rest(now: Instant, length: Duration) -> Rest {
    Rest {
        began: now,
        until: now + length,
        reason: (0, ""),
    }
}

fn doubled(first: Duration, repeats: u32, longest: Duration) -> Duration {
    first
        .saturating_mul(2u32.saturating_pow(repeats))
        .min(longest)
}

/// Whether a rest may begin: the last one is over, and the request was sent after it began.
fn may_begin(last: Option<Rest>, sent_at: Instant, now: Instant) -> bool {
    last.is_none_or(|last| last.until <= now && sent_at > last.began)
}

/// Begins a rest, or makes one longer that lasts. Returns the length of one that begins.
fn renew(
    known: &mut Option<Rest>,
    length: Duration,
    sent_at: Instant,
    now: Instant,
) -> Option<Duration> {
    match known {
        Some(known) if known.until > now => {
            if sent_at > known.began {
                known.until = known.until.max(now + length);
            }
            None
        }
        Some(known) if sent_at <= known.began => None,
        _ => {
            *known = Some(rest(now, length));
            Some(length)
        }
    }
}
