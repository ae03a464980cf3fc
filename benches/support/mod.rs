//! What the bench and the soak are made of: a stand-in upstream, load clients, a blind relay, and
//! the processes that run them. Out of scope: what is measured and what is asked of it (`suite`,
//! `soak.rs`).
//!
//! Upstream, relay and load client run as child processes of the same binary, each in a role
//! (`roles`), so that processor time and memory can be told apart.

pub mod fronts;
pub mod histogram;
pub mod http;
pub mod load;
pub mod poller;
pub mod process;
pub mod relay;
pub mod report;
pub mod roles;
pub mod streams;
pub mod upstream;
