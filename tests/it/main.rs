//! Black-box tests: the built binary, real sockets, port 0. One test binary, so that there is one link.

mod support;

mod answers;
mod attack_clients;
mod attack_resources;
mod attack_upstreams;
mod bodies;
mod body_limits;
mod broken_streams;
mod cancelling;
mod cli;
mod demo;
mod docs;
mod dotenv;
mod endless_work;
mod errors;
mod failover;
mod forward_mode;
mod forwarding;
mod framing;
mod gate;
mod limits;
mod load;
mod logging;
mod pages;
mod reload;
mod request_line;
mod resting;
mod secrets;
mod shutdown;
mod streaming;
mod targets;
mod tiny_http;
mod tls;
mod upstream_proxy;
mod waiting;
