//! The attempts at one request: what a response's status says about the credential, and what the outcome
//! of the whole request proves.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use super::balancer::{Announce, Balancer, Event, EventKind, Selection};
use crate::config::secrets::Configuration;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// A request is sent to the upstream at most this often, each time with another credential.
const MAX_ATTEMPTS: usize = 3;
/// How long a limited credential rests where the upstream does not say.
const RATE_LIMIT_COOLDOWN: Duration = Duration::from_secs(5);
/// … and where all credentials that were tried are limited: then it may be the model that is.
const SHORT_COOLDOWN: Duration = Duration::from_secs(1);
/// The longest rest that an upstream can ask for.
const LONGEST_RATE_LIMIT_COOLDOWN: Duration = Duration::from_secs(5 * 60);

/// What a response says about the credential that the request was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Only an accepted credential gets this response.
    Accepted,
    /// 401 or 403: the credential is at fault, or the request is.
    Rejected,
    /// 429, with what Retry-After says.
    Limited(Option<Duration>),
    /// The upstream failed, which says nothing about the credential.
    Nothing,
}

impl Verdict {
    /// Whether another credential may get a better response.
    pub fn allows_failover(self) -> bool {
        matches!(self, Verdict::Rejected | Verdict::Limited(_))
    }

    pub fn of(status: StatusCode, fields: &HeaderBlock) -> Verdict {
        match status.as_u16() {
            401 | 403 => Verdict::Rejected,
            429 => Verdict::Limited(retry_after(fields, SystemTime::now())),
            500.. => Verdict::Nothing,
            _ => Verdict::Accepted,
        }
    }
}

/// RFC 9110 section 10.2.3: seconds or a date.
fn retry_after(fields: &HeaderBlock, now: SystemTime) -> Option<Duration> {
    let value = std::str::from_utf8(fields.value(KnownHeader::RetryAfter)?)
        .ok()?
        .trim();
    // LiteLLM passes fractions of a second on from some models' providers.
    let rest = match value.parse::<f64>() {
        Ok(seconds) if seconds >= LONGEST_RATE_LIMIT_COOLDOWN.as_secs_f64() => {
            LONGEST_RATE_LIMIT_COOLDOWN
        }
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        // A date that has passed asks for no rest.
        Err(_) => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(rest.min(LONGEST_RATE_LIMIT_COOLDOWN))
}

/// The attempts at one request so far.
pub struct Attempts {
    /// The first `count` are there.
    selections: [Option<Selection>; MAX_ATTEMPTS],
    count: usize,
    /// Of each pick in turn whose attempt is over.
    verdicts: [Option<Verdict>; MAX_ATTEMPTS],
}

impl Attempts {
    pub fn new() -> Self {
        Attempts {
            selections: [const { None }; MAX_ATTEMPTS],
            count: 0,
            verdicts: [None; MAX_ATTEMPTS],
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn current(&self) -> Option<&Selection> {
        self.selections[..self.count].last()?.as_ref()
    }

    /// Chooses the configuration of the next attempt, if there may be one.
    pub fn next(&mut self, balancer: &Balancer, now: Instant) -> Option<&Selection> {
        if self.count == MAX_ATTEMPTS {
            return None;
        }
        let selection = balancer.selection(now, self.selections.iter().flatten())?;
        log::info!("Using configuration '{}'", selection.configuration.name);
        let place = &mut self.selections[self.count];
        self.count += 1;
        Some(place.insert(selection))
    }

    /// Takes note of the response to the current attempt.
    pub fn record_verdict(&mut self, balancer: &Balancer, verdict: Verdict, status: StatusCode) {
        let Some(last) = self.count.checked_sub(1) else {
            return;
        };
        self.verdicts[last] = Some(verdict);
        let Some(selection) = &self.selections[last] else {
            return;
        };
        let now = Instant::now;
        match verdict {
            Verdict::Rejected => log::error!(
                "Authentication failed for config '{}': upstream answered {}",
                selection.configuration.name,
                status.as_u16()
            ),
            Verdict::Limited(Some(rest)) => {
                log_event(balancer.limited(selection, rest, now(), Announce::Now));
            }
            // How long is known at the end: no other request should run into the limit meanwhile.
            Verdict::Limited(None) => {
                log_event(balancer.limited(selection, SHORT_COOLDOWN, now(), Announce::Later));
            }
            Verdict::Accepted | Verdict::Nothing => {}
        }
    }

    /// Ends the attempts: the last response is passed on, or there is none.
    ///
    /// A rejected credential is marked failed only if another one succeeds for the same request. Otherwise
    /// the request itself may be at fault, and one bad request must not take every credential out of
    /// rotation. Ends all probes. Returns the configuration of the last attempt.
    pub fn conclude(
        &mut self,
        balancer: &Balancer,
        last_status: Option<StatusCode>,
    ) -> Option<Arc<Configuration>> {
        let now = Instant::now;
        let verdicts = &self.verdicts[..self.count];
        let is_limited = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Limited(_)));
        let all_limited = verdicts.iter().all(is_limited);
        let last = verdicts.last().copied().flatten();
        let is_accepted = last == Some(Verdict::Accepted);
        let record_verdict = self.selections.iter().flatten().zip(verdicts);
        for (selection, verdict) in
            record_verdict.filter_map(|(selection, verdict)| Some((selection, (*verdict)?)))
        {
            let event = match verdict {
                Verdict::Rejected if is_accepted => balancer.failed(selection, now()),
                Verdict::Limited(None) => {
                    let rest = if all_limited {
                        SHORT_COOLDOWN
                    } else {
                        RATE_LIMIT_COOLDOWN
                    };
                    balancer.limited(selection, rest, now(), Announce::Now)
                }
                // Nothing follows from it for a healthy credential.
                Verdict::Accepted if selection.is_probe => balancer.accepted(selection, now()),
                _ => None,
            };
            log_event(event);
        }
        match (last, last_status, self.current()) {
            (Some(Verdict::Rejected | Verdict::Limited(_)), Some(status), _) => log::error!(
                "All configurations failed for this request (last answer: {})",
                status.as_u16()
            ),
            (Some(Verdict::Accepted), _, Some(selection)) if self.count > 1 => {
                let name = &selection.configuration.name;
                log::info!("Failover successful - using config '{name}'");
            }
            _ => {}
        }
        let last = self.count.checked_sub(1)?;
        let last = self.selections[last].take()?;
        *self = Attempts::new();
        Some(last.configuration)
    }
}

/// Logs a change.
fn log_event(event: Option<Event>) {
    let Some(event) = event else { return };
    match event.kind {
        EventKind::Failed => log::error!("{event}"),
        EventKind::Limited { .. } => log::warn!("{event}"),
        EventKind::Restored => log::info!("{event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_over_five_minutes() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let rest = |value| retry_after(&HeaderBlock::of(&[("Retry-After", value)]), now);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(rest("7"), seconds(7));
        assert_eq!(rest("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(rest("86400"), seconds(300));
        assert_eq!(rest("99999999999999999999999"), seconds(300));
        assert_eq!(rest("Sun, 06 Nov 1994 08:49:57 GMT"), seconds(20));
        assert_eq!(rest("Sun, 06 Nov 1994 08:40:00 GMT"), seconds(0));
        assert_eq!(rest("soon"), None);
        assert_eq!(rest("-1"), None);
        assert_eq!(retry_after(&HeaderBlock::default(), now), None);
    }

    #[test]
    fn statuses_say_what_the_table_says() {
        let verdict = |status| {
            Verdict::of(
                StatusCode::from_u16(status).unwrap(),
                &HeaderBlock::default(),
            )
        };
        for status in [401, 403] {
            assert_eq!(verdict(status), Verdict::Rejected);
        }
        assert_eq!(verdict(429), Verdict::Limited(None));
        for status in [200, 204, 302, 400, 404, 422] {
            assert_eq!(verdict(status), Verdict::Accepted);
        }
        for status in [500, 502, 503, 504, 529] {
            assert_eq!(verdict(status), Verdict::Nothing);
        }
    }
}
