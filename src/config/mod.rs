//! What the program runs with: options, target, credentials and their tokens, and the watcher of the
//! secrets file. Also how a file is read, and what messages about them need:
//! how a value is shown, and which name was meant.

pub mod address;
pub mod file;
pub mod jwt;
pub mod options;
pub mod origin;
pub mod proxy_variables;
pub mod secrets;
pub mod shown;
pub mod suggest;
pub mod target;
pub mod watch;
