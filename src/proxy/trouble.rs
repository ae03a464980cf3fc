//! Requests that the upstream does not answer: why, and what the client is told.

use super::access_log::{AccessLog, CLIENT_GONE_STATUS, ExchangeEnd};
use super::error::{Code, Dialect, ProxyError};
use super::{Proxy, own_response};
use crate::http1::error::Reason;
use crate::server::{ClientError, Exchange};
use crate::upstream::connection::UpstreamError;

/// Why a request is not answered by the upstream.
pub(super) enum ProxyError_ {
    /// Answered by ourselves.
    Own(ProxyError),
    Client(ClientError),
    UpstreamConnection(UpstreamError),
}

impl From<ProxyError> for ProxyError_ {
    fn from(error: ProxyError) -> Self {
        ProxyError_::Own(error)
    }
}

impl From<ClientError> for ProxyError_ {
    fn from(fault: ClientError) -> Self {
        ProxyError_::Client(fault)
    }
}

impl Proxy {
    /// Answers a request that the upstream did not answer, and notes how it ended.
    #[inline(never)]
    pub(super) fn respond_with_error(
        &self,
        exchange: &mut Exchange<'_>,
        access_log: &mut AccessLog,
        trouble: ProxyError_,
    ) {
        let stopped = || ProxyError::new(Code::ShuttingDown, "the proxy was stopped meanwhile");
        let (error, end) = match trouble {
            ProxyError_::Own(error) => (Some(error), ExchangeEnd::Ok),
            ProxyError_::Client(ClientError::Gone)
            | ProxyError_::UpstreamConnection(UpstreamError::ClientClosed) => {
                if exchange.is_aborting() {
                    (Some(stopped()), ExchangeEnd::Shutdown)
                } else {
                    (None, ExchangeEnd::ClientGone)
                }
            }
            ProxyError_::Client(ClientError::TimedOut) => (None, ExchangeEnd::ClientTimeout),
            ProxyError_::Client(ClientError::RejectedRequest(refusal)) => {
                let end = match refusal.reason {
                    Reason::RequestTimeout => ExchangeEnd::ClientTimeout,
                    _ => ExchangeEnd::Ok,
                };
                (Some(ProxyError::from(&refusal)), end)
            }
            ProxyError_::UpstreamConnection(failure) => {
                let (error, end) = self.upstream_error(failure);
                (Some(error), end)
            }
        };
        access_log.end = end;
        match error {
            Some(error) if !exchange.is_started() => {
                access_log.status = error.code.status();
                if let Code::UpstreamUnreachable | Code::UpstreamBroke = error.code {
                    log::error!("{}", error.message);
                }
                let path = access_log.path.of(&exchange.head.target);
                let dialect = Dialect::of(path, &self.target.base_path);
                let (fields, body) = error.answer(dialect);
                own_response::reply(exchange, access_log, error.code.status(), &fields, &body);
            }
            _ => access_log.status = CLIENT_GONE_STATUS,
        }
    }

    fn upstream_error(&self, failure: UpstreamError) -> (ProxyError, ExchangeEnd) {
        let host = &self.target.authority;
        match failure {
            UpstreamError::ClientClosed => (
                ProxyError::new(Code::InternalError, "the client left"),
                ExchangeEnd::ClientGone,
            ),
            UpstreamError::TimedOut => (
                ProxyError::new(
                    Code::UpstreamTimeout,
                    format!(
                        "{host} did not answer in time: try again, or raise --upstream-timeout"
                    ),
                ),
                ExchangeEnd::UpstreamTimeout,
            ),
            UpstreamError::NoDescriptors => (
                ProxyError::new(
                    Code::Overloaded,
                    "the proxy has no file descriptors left: raise its limit (ulimit -n), or \
                     lower --workers",
                ),
                ExchangeEnd::Ok,
            ),
            UpstreamError::Unreachable(why) => (
                ProxyError::new(
                    Code::UpstreamUnreachable,
                    format!(
                        "cannot reach {host}: {why}. Check the network, --target-url, --ca-file \
                         and HTTPS_PROXY on the machine that runs the proxy"
                    ),
                ),
                ExchangeEnd::UpstreamBroke,
            ),
            UpstreamError::Broke(why) => (
                ProxyError::new(
                    Code::UpstreamBroke,
                    format!(
                        "{host} closed the connection or sent no valid answer: {why}. Try again"
                    ),
                ),
                ExchangeEnd::UpstreamBroke,
            ),
        }
    }
}
