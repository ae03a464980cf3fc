//! Why an exchange with the upstream failed.

use std::fmt;

/// Why there is no response, or no more of it.
#[derive(Debug)]
pub enum UpstreamError {
    /// The client disconnected while the upstream was waited for.
    ClientClosed,
    /// The upstream was silent for too long.
    TimedOut,
    /// No connection: DNS, TCP, TLS, a proxy in between.
    Unreachable(String),
    /// No connection, because this process may open no more files.
    NoDescriptors,
    /// The upstream closed too early, or sent something that is no HTTP response.
    Broke(String),
}

/// What went wrong on the connection. Holds no value of a request.
pub(super) enum ExchangeError {
    /// While the connection was made.
    Connecting(ureq::Error),
    Exchanging(ureq::Error),
    NotHttp(String),
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
            ExchangeError::NotHttp(what) => write!(formatter, "not a valid HTTP answer: {what}"),
            ExchangeError::ClosedEarly => formatter.write_str("it closed the connection too early"),
        }
    }
}
