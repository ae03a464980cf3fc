//! Requests that the upstream does not answer: why, and what the client is told.

use super::access_log::{CLIENT_GONE_STATUS, End, Record};
use super::error::{Code, Dialect, ProxyError};
use super::{Proxy, own_response};
use crate::http1::error::Reason;
use crate::server::{ClientFault, Exchange};
use crate::upstream::connection::Failure;

/// Why a request is not answered by the upstream.
pub(super) enum Trouble {
    /// Answered by ourselves.
    Own(ProxyError),
    Client(ClientFault),
    Upstream(Failure),
}

impl From<ProxyError> for Trouble {
    fn from(error: ProxyError) -> Self {
        Trouble::Own(error)
    }
}

impl From<ClientFault> for Trouble {
    fn from(fault: ClientFault) -> Self {
        Trouble::Client(fault)
    }
}

impl Proxy {
    /// Answers a request that the upstream did not answer, and notes how it ended.
    #[inline(never)]
    pub(super) fn explain(
        &self,
        exchange: &mut Exchange<'_>,
        record: &mut Record,
        trouble: Trouble,
    ) {
        let stopped = || ProxyError::new(Code::ShuttingDown, "the proxy was stopped meanwhile");
        let (error, end) = match trouble {
            Trouble::Own(error) => (Some(error), End::Ok),
            Trouble::Client(ClientFault::Gone) | Trouble::Upstream(Failure::ClientLeft) => {
                if exchange.is_aborting() {
                    (Some(stopped()), End::Shutdown)
                } else {
                    (None, End::ClientGone)
                }
            }
            Trouble::Client(ClientFault::TimedOut) => (None, End::ClientTimeout),
            Trouble::Client(ClientFault::Refused(refusal)) => {
                let end = match refusal.reason {
                    Reason::RequestTimeout => End::ClientTimeout,
                    _ => End::Ok,
                };
                (Some(ProxyError::from(&refusal)), end)
            }
            Trouble::Upstream(failure) => {
                let (error, end) = self.upstream_error(failure);
                (Some(error), end)
            }
        };
        record.end = end;
        match error {
            Some(error) if !exchange.is_started() => {
                record.status = error.code.status();
                if let Code::UpstreamUnreachable | Code::UpstreamBroke = error.code {
                    log::error!("{}", error.message);
                }
                let path = record.path.of(&exchange.head.target);
                let dialect = Dialect::of(path, &self.target.base_path);
                let (fields, body) = error.answer(dialect);
                own_response::reply(exchange, record, error.code.status(), &fields, &body);
            }
            _ => record.status = CLIENT_GONE_STATUS,
        }
    }

    fn upstream_error(&self, failure: Failure) -> (ProxyError, End) {
        let host = &self.target.authority;
        match failure {
            Failure::ClientLeft => (
                ProxyError::new(Code::InternalError, "the client left"),
                End::ClientGone,
            ),
            Failure::TimedOut => (
                ProxyError::new(
                    Code::UpstreamTimeout,
                    format!(
                        "{host} did not answer in time: try again, or raise --upstream-timeout"
                    ),
                ),
                End::UpstreamTimeout,
            ),
            Failure::NoDescriptors => (
                ProxyError::new(
                    Code::Overloaded,
                    "the proxy has no file descriptors left: raise its limit (ulimit -n), or \
                     lower --workers",
                ),
                End::Ok,
            ),
            Failure::Unreachable(why) => (
                ProxyError::new(
                    Code::UpstreamUnreachable,
                    format!(
                        "cannot reach {host}: {why}. Check the network, --target-url, --ca-file \
                         and HTTPS_PROXY on the machine that runs the proxy"
                    ),
                ),
                End::UpstreamBroke,
            ),
            Failure::Broke(why) => (
                ProxyError::new(
                    Code::UpstreamBroke,
                    format!(
                        "{host} closed the connection or sent no valid answer: {why}. Try again"
                    ),
                ),
                End::UpstreamBroke,
            ),
        }
    }
}
