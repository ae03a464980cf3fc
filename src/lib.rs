#![forbid(unsafe_code)]
//! flow-proxy: a reverse proxy in front of the Flow LLM Proxy.
//!
//! The rooms in the order in which a request goes through them:
//!
//! - [`commands`]: what the program can be asked to do
//! - [`cli`]: arguments, environment and `.env`, read into options
//! - [`config`]: options, target, credentials and their tokens, the watcher of the secrets file
//! - [`logging`]: the log, to stderr and to a file
//! - [`server`]: the client's side, HTTP/1.1 on blocking threads that share short waits; knows
//!   nothing of Flow
//! - [`proxy`]: one request's life: who may come in, which credential, relay, log
//! - [`upstream`]: one connection to the target
//! - [`http1`]: the messages, without I/O
//! - [`net`]: sockets and waiting
//! - [`demo`]: a simulated Flow in the same process

pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod http1;
pub mod logging;
pub mod net;
pub mod proxy;
pub mod server;
pub mod upstream;
