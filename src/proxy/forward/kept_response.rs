//! A response that was not passed on because another credential was asked, kept whole: the client can wait
//! for a limit or a provider, and such a response says more than what another credential lacks.

use std::sync::Arc;

use super::error_body::ErrorBody;
use super::relay::Relayed;
use crate::config::secrets::Configuration;
use crate::http1::response::ResponseHead;
use crate::proxy::balancer::verdict::Verdict;
use crate::proxy::headers::{self, ClientHeaders};
use crate::server::Exchange;

/// The best response of the earlier attempts.
pub struct Kept {
    pub verdict: Verdict,
    pub config: Option<Arc<Configuration>>,
    pub response: ResponseHead,
    body: ErrorBody,
}

impl Kept {
    /// Keeps a response in `kept` if it is whole and says at least as much as the one there.
    pub fn keep(
        kept: &mut Option<Kept>,
        (verdict, config): (Verdict, Option<Arc<Configuration>>),
        response: ResponseHead,
        body: ErrorBody,
    ) {
        let known = kept.as_ref().map_or(0, |kept| rank(kept.verdict));
        if body.is_whole && rank(verdict) > 0 && rank(verdict) >= known {
            *kept = Some(Kept {
                verdict,
                config,
                response,
                body,
            });
        }
    }

    /// Whether it says more to the client than a response with `verdict`.
    pub fn says_more_than(&self, verdict: Verdict) -> bool {
        verdict.calls_for_another() && rank(self.verdict) > rank(verdict)
    }

    /// Sends it to the client.
    pub fn send(&self, exchange: &mut Exchange<'_>, headers: &mut ClientHeaders<'_>) -> Relayed {
        exchange.start(
            self.response.status,
            headers::for_client(&self.response.fields, headers),
            self.response.body_length,
        );
        exchange.write(&self.body.bytes);
        match exchange.finish() {
            Ok(()) => Relayed::Whole,
            Err(error) => Relayed::Client(error),
        }
    }
}

/// How much a response says to a client that gets no better one.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Provider => 2,
        Verdict::Limit { .. } | Verdict::Busy => 1,
        _ => 0,
    }
}
