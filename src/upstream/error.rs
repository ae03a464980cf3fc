//! Why an exchange with the upstream failed.

use std::fmt;

/// Why there is no response, or no more of it. The texts are a reason for the user, without secrets.
#[derive(Debug)]
pub enum UpstreamError {
    /// The client disconnected while this side waited for the upstream.
    ClientClosed,
    /// The upstream sent nothing for longer than its timeout.
    TimedOut,
    /// There is no connection, because of DNS, TCP, TLS or a proxy in between, or it was closed before
    /// the request was sent: the upstream has not worked on it.
    Unreachable(String),
    /// There is no connection, because this process may not open more files.
    NoDescriptors,
    /// The request was sent, and the upstream closed too early, or sent something that is not a valid
    /// HTTP response. It may have worked on the request.
    Broke(String),
}

/// What went wrong on the connection. Contains nothing of a request.
pub(super) enum ExchangeError {
    /// No connection could be made.
    Connecting(ureq::Error),
    /// Reading or writing failed.
    Exchanging(ureq::Error),
    /// The response is malformed, for this reason.
    NotHttp(String),
    /// The upstream closed in the middle of a response, or before it.
    ClosedEarly,
}

impl From<ureq::Error> for ExchangeError {
    fn from(error: ureq::Error) -> Self {
        ExchangeError::Exchanging(error)
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Connecting(ureq::Error::HostNotFound) => {
                formatter.write_str("the name does not resolve")
            }
            ExchangeError::Connecting(ureq::Error::Io(error))
            | ExchangeError::Exchanging(ureq::Error::Io(error)) => match error.get_ref() {
                Some(inner) => write!(formatter, "{inner}"),
                None => write!(formatter, "{error}"),
            },
            ExchangeError::Connecting(error) | ExchangeError::Exchanging(error) => {
                write!(formatter, "{error}")
            }
            ExchangeError::NotHttp(reason) => {
                write!(formatter, "not a valid HTTP response: {reason}")
            }
            ExchangeError::ClosedEarly => formatter.write_str("it closed the connection too early"),
        }
    }
}
