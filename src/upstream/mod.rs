//! One HTTP/1.1 connection to the target: connecting, TLS, proxies on the way, the exchange. Knows
//! neither the client's side nor the proxy's rules.

mod buffers;
mod connect;
pub mod connection;
pub mod connector;
pub mod error;
pub mod proxy_env;
pub mod request;
mod socks;
mod stream;
mod tls;
mod tls_sessions;
