//! One connection to the target.

mod buffers;
mod connect;
pub mod connection;
pub mod proxy_env;
pub mod request;
mod socks;
mod stream;
mod tls;
mod tls_sessions;
