//! The attempts at one request: which credentials were asked, what their responses said, and what the
//! outcome of the whole request proves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::config::secrets::Configuration;
use crate::proxy::balancer::Balancer;
use crate::proxy::balancer::selection::{Selection, Wanted};
use crate::proxy::balancer::verdict::{Judgement, Verdict};
use crate::proxy::ledger::recent::Attempt;

/// No attempt begins later than this after the first response that called for one, but for the second.
const MAX_FAILOVER_TIME: Duration = Duration::from_secs(10);

/// The attempts at one request so far.
#[derive(Default)]
pub struct Attempts {
    /// In their order; each has another credential.
    selections: Vec<Selection>,
    /// Attempts in all, those before a wait for a limit included.
    count: usize,
    /// Attempts before a wait for a limit, and their verdicts.
    earlier: Vec<(Arc<Configuration>, Option<Verdict>, Option<StatusCode>)>,
    /// When the first response came that called for another attempt.
    called_at: Option<Instant>,
}

impl Attempts {
    pub fn count(&self) -> usize {
        self.count
    }

    /// The selection of the attempt that was begun last.
    pub fn current(&self) -> Option<&Selection> {
        self.selections.last()
    }

    /// Chooses the configuration of the first attempt.
    pub fn begin(&mut self, balancer: &Balancer, now: Instant, wanted: Wanted<'_>) {
        let earlier = self.selections.drain(..);
        self.earlier.extend(earlier.map(|one| {
            let verdict = verdict_of(&one);
            (Arc::clone(&one.configuration), verdict, one.status)
        }));
        self.called_at = None;
        self.select(balancer, now, wanted);
    }

    /// Chooses the configuration of the next attempt, if there may be one.
    pub fn next(&mut self, balancer: &Balancer, now: Instant, model: Option<&str>) -> bool {
        let Some(last) = self.current().and_then(verdict_of) else {
            return false;
        };
        if !last.calls_for_another() {
            return false;
        }
        let called_at = *self.called_at.get_or_insert(now);
        let is_late = now.duration_since(called_at) > MAX_FAILOVER_TIME;
        let is_provider = |one: &Selection| verdict_of(one) == Some(Verdict::Provider);
        let is_second = self.selections.len() == 1;
        // Where a provider failed, one other credential is asked at most.
        let first_of_provider = self.selections.iter().position(is_provider);
        let has_asked_another = first_of_provider.is_some_and(|at| self.selections.len() > at + 1);
        if (is_late && !is_second) || has_asked_another {
            return false;
        }
        let wanted = Wanted {
            model,
            asks_resting: last.asks_resting(),
            avoids_probe: false,
        };
        self.select(balancer, now, wanted)
    }

    fn select(&mut self, balancer: &Balancer, now: Instant, wanted: Wanted<'_>) -> bool {
        let Some(selection) = balancer.select(now, &self.selections, wanted) else {
            return false;
        };
        log::info!("Using configuration '{}'", selection.configuration.name);
        if let Some(last) = self.selections.last_mut() {
            last.leave();
        }
        self.selections.push(selection);
        self.count += 1;
        true
    }

    /// Takes note of the response to the current attempt.
    pub fn record(
        &mut self,
        balancer: &Balancer,
        judgement: Judgement,
        status: StatusCode,
        model: Option<&str>,
    ) {
        let Some(selection) = self.selections.last_mut() else {
            return;
        };
        selection.status = Some(status);
        if let Verdict::Credential | Verdict::Dead | Verdict::Forbidden = judgement.verdict {
            log::error!(
                "Authentication failed for config '{}': upstream answered {}",
                selection.configuration.name,
                status.as_u16()
            );
        }
        if let Some(event) = balancer.record(selection, judgement, model, Instant::now()) {
            event.log();
        }
    }

    /// Ends the attempts, except that the last one's response may still be passed on: marks what they
    /// prove and ends all probes. `passed_on` is the verdict and the status of the response that the
    /// client gets; `None`: it gets none of the upstream's.
    pub fn conclude(
        &mut self,
        balancer: &Balancer,
        model: Option<&str>,
        passed_on: Option<(Verdict, StatusCode)>,
    ) {
        if self.selections.iter().any(is_accepted) {
            for selection in self.selections.iter().filter(|one| !is_accepted(one)) {
                let Some(verdict @ (Verdict::Credential | Verdict::Forbidden)) =
                    verdict_of(selection)
                else {
                    continue;
                };
                if let Some(event) = balancer.prove(selection, verdict, model, Instant::now()) {
                    event.log();
                }
            }
        }
        self.selections.iter_mut().for_each(Selection::end_probe);
        let Some((verdict, status)) = passed_on else {
            return;
        };
        if verdict.concerns_credential() {
            log::error!(
                "All configurations failed for this request (last answer: {})",
                status.as_u16()
            );
        } else if self.count > 1
            && let Some(selection) = self.current()
            && is_accepted(selection)
        {
            let name = &selection.configuration.name;
            log::info!("Failover successful - using config '{name}'");
        }
    }

    /// Whether the upstream has said of every credential that asking again is of no use.
    pub fn are_final(&self, balancer: &Balancer, model: Option<&str>) -> bool {
        let is_final = |one: &Selection| verdict_of(one).is_none_or(Verdict::is_final);
        self.selections.iter().all(is_final)
            && balancer.is_exhausted(&self.selections, model, Instant::now())
    }

    /// What each attempt came to.
    pub fn outcomes(&self) -> impl Iterator<Item = Attempt<'_>> {
        let earlier = self.earlier.iter();
        let earlier = earlier.map(|(config, verdict, status)| outcome(config, *verdict, *status));
        let selections = self.selections.iter();
        let last = selections.map(|one| outcome(&one.configuration, verdict_of(one), one.status));
        earlier.chain(last)
    }

    /// The configuration of the current attempt.
    pub fn configuration(&self) -> Option<Arc<Configuration>> {
        let current = self.current()?;
        Some(Arc::clone(&current.configuration))
    }
}

fn outcome(
    config: &Configuration,
    verdict: Option<Verdict>,
    status: Option<StatusCode>,
) -> Attempt<'_> {
    let is_good = status.is_some_and(|status| status.as_u16() < 400);
    Attempt {
        config: &config.name,
        verdict: match verdict {
            None => "none",
            Some(Verdict::Request) if is_good => "ok",
            Some(verdict) => verdict.name(),
        },
        is_rejected: verdict.is_some_and(Verdict::concerns_credential),
    }
}

fn verdict_of(selection: &Selection) -> Option<Verdict> {
    selection.judgement.map(|judgement| judgement.verdict)
}

fn is_accepted(selection: &Selection) -> bool {
    selection
        .judgement
        .is_some_and(|judgement| judgement.is_accepted)
}
