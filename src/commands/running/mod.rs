//! What is asked of the proxy that runs at the host and port of the options: `health` and `status`.
//!
//! Any program may listen there: what it sends is read up to a limit, believed only where it has the
//! form of the proxy's own pages, and shown escaped.

mod ask;
pub mod health;
mod snapshot;
pub mod status;
mod view;
