//! What the bench and the soak share: a stand-in upstream, load clients, a blind relay, and the
//! processes that run them. Out of scope: what is measured, and the targets (`suite`, `soak.rs`).
//!
//! Upstream, relay and load client are child processes of the same binary, each in a role
//! (`roles`), so that their processor time and memory can be measured separately.

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
