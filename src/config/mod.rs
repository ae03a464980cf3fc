//! What the program runs with: options, target, credentials and their tokens, and the watcher of the
//! secrets file.

pub mod address;
pub mod jwt;
pub mod options;
pub mod secrets;
pub mod target;
pub mod watch;
