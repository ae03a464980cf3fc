//! One HTTP/1.1 connection to the target: connecting, TLS, a proxy in between, and the exchange.
//!
//! Reading order: [`connector`] makes a connection, [`connection`] exchanges messages on it. `stream` holds
//! the socket and watches the client during every wait.
//!
//! Out of scope: the client's side, and what a response means to the proxy. Called by the worker that
//! serves the request; only [`connector::Upstream`] is shared between threads.

mod connect;
pub mod connection;
pub mod connector;
pub mod error;
mod http_connect;
pub mod proxy_env;
pub mod request;
mod socks;
mod stream;
mod tls;
mod tls_sessions;
