//! A configuration that was chosen for one attempt, and what the choice depended on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::StatusCode;

use super::health::{Health, Shared};
use super::verdict::{Judgement, Verdict};
use crate::config::secrets::Configuration;

/// A configuration that was chosen for one attempt.
#[derive(Debug)]
pub struct Selection {
    pub configuration: Arc<Configuration>,
    pub sent_at: Instant,
    /// Whether an accepted response changes the credential's health.
    pub(super) has_marks: bool,
    /// What the response said, once it has come.
    pub judgement: Option<Judgement>,
    /// The status of the response.
    pub status: Option<StatusCode>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) probe: Option<Probe>,
    pub(super) shared: Arc<Shared>,
}

impl Selection {
    /// The status of the response; 0 before it has come.
    pub(super) fn status(&self) -> u16 {
        self.status.map_or(0, |status| status.as_u16())
    }

    /// The request goes on with another credential.
    pub fn leave(&mut self) {
        self.in_flight = None;
    }

    /// Ends the probe of a failed credential; others may try it from now on.
    pub fn end_probe(&mut self) {
        self.probe = None;
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        let is_busy = |judgement: Judgement| judgement.verdict == Verdict::Busy;
        // Its end makes no place where it was rejected as busy itself.
        if !self.judgement.is_some_and(is_busy) {
            self.shared.end_busy();
        }
    }
}

/// Counts a request in flight until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub(super) fn of(count: &Arc<AtomicUsize>) -> InFlight {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the probe of a credential when it is dropped.
#[derive(Debug)]
pub(super) struct Probe(pub(super) Arc<Shared>);

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

pub(super) fn is_tried(tried: &[Selection], health: &Health) -> bool {
    tried
        .iter()
        .any(|tried| tried.configuration.credential == health.credential)
}
