//! Target, credentials and their tokens, and the watcher of the secrets file.

pub mod jwt;
pub mod secrets;
pub mod target;
pub mod watch;
