#![forbid(unsafe_code)]
//! flow-proxy: a reverse proxy in front of the Flow LLM Proxy.
//!
//! The files in the order in which a request goes through them:
//!
//! - [`cli`], [`secrets`], [`jwt`], [`target`], [`logging`]: what runs, with which credentials
//! - [`run`]: from start to stop
//! - [`server`]: the client's side, HTTP/1.1 on blocking threads that share short waits; knows
//!   nothing of Flow
//! - [`proxy`]: one request's life: who may come in, which credential, upstream, relay, log
//! - [`pages`]: the proxy's own pages
//! - [`socket`]: the one place where a thread waits for one socket, for both sides
//! - [`reload`]: the secrets file, loaded again when it changes
//! - [`online`]: whether the target can be reached and accepts each credential
//! - [`demo`]: a simulated Flow in the same process

pub mod cli;
pub mod demo;
pub mod jwt;
pub mod logging;
pub mod online;
pub mod pages;
pub mod proxy;
pub mod reload;
pub mod run;
pub mod secrets;
pub mod server;
pub mod socket;
pub mod target;
