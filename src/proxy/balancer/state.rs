//! Turns and healths: what the balancer's mutex guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::event::{Event, EventKind};
use super::health::{FORBIDDEN_COOLDOWN, Health, MODEL_COOLDOWN, ModelRest};
use super::selection::{InFlight, Probe, Selection, Wanted, is_tried};
use super::verdict::{Judgement, Verdict};
use crate::config::secrets::Configuration;

/// Guarded by one mutex, held for a choice or a verdict.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In file order, at least one.
    pub(super) entries: Vec<Entry>,
    /// The number of turns so far.
    turns: u64,
    pub(super) credentials: Vec<Health>,
}

/// One turn in the round-robin.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) configuration: Arc<Configuration>,
    /// Requests that wait for its response or pass it on.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// Index into `State::credentials`.
    credential: usize,
    /// The number of its last turn; 0: it has had none.
    last_turn: u64,
}

impl State {
    pub(super) fn select(
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
            judgement: None,
            status: None,
            in_flight: Some(InFlight::of(&entry.in_flight)),
            probe,
            shared,
        }
    }

    pub(super) fn health(&self, entry: &Entry) -> &Health {
        &self.credentials[entry.credential]
    }

    /// The health of the credential of `selection`, unless a reload has removed it.
    fn health_of(&mut self, selection: &Selection) -> Option<&mut Health> {
        self.credentials
            .iter_mut()
            .find(|health| health.credential == selection.configuration.credential)
    }

    pub(super) fn record(
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
        if let Some(EventKind::Failed | EventKind::Limited { .. } | EventKind::BudgetSpent { .. }) =
            kind
        {
            health.note_reason(verdict, selection.status());
        }
        let kind = kind.or(is_restored.then_some(EventKind::Restored))?;
        Some(self.event(selection, kind, model, (now, start)))
    }

    pub(super) fn prove(
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
        if kind == Some(EventKind::Failed) {
            health.note_reason(verdict, selection.status());
        }
        Some(self.event(selection, kind?, model, (now, start)))
    }

    pub(super) fn replace(&mut self, configurations: &[Configuration]) {
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
            let old = old.map(|index| old_entries.remove(index));
            self.entries.push(Entry {
                configuration: Arc::new(configuration.clone()),
                credential,
                last_turn: old.as_ref().map_or(0, |old| old.last_turn),
                in_flight: old.map_or_else(Arc::default, |old| old.in_flight),
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
