//! The ways from the load client to the upstream: none between, the relay, flow-proxy, nginx,
//! HAProxy. All are up during the whole part and are asked in turn.

use std::io;
use std::net::SocketAddr;

use super::Plan;
use crate::support::fronts::{
    FlowProxy, Scratch, is_in_path, nginx_proxy_block, start_haproxy, start_nginx,
};
use crate::support::process::Process;
use crate::support::roles;

pub const DIRECT: &str = "direct";
pub const RELAY: &str = "relay";
pub const RELAY_LOOKING: &str = "relay, looking";
pub const FLOW: &str = "flow-proxy";
pub const FLOW_INFO: &str = "flow-proxy INFO";
pub const NGINX: &str = "nginx";
pub const HAPROXY: &str = "haproxy";

pub struct Way {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The process between; the upstream itself for `direct`.
    pub process: Process,
}

/// How often the looking relay looks. Eight is the knee: more finds hardly anything more.
const LOOKS: u32 = 8;
/// Enough for every stream of the SSE parts at once.
pub const STREAM_WORKERS: u32 = 600;

/// Starts an upstream and every front that is wanted and can be had. A front that does not start
/// is told on stderr and left out.
pub fn start(
    plan: &Plan,
    scratch: &Scratch,
    wanted: &[&'static str],
    workers: Option<u32>,
) -> io::Result<Vec<Way>> {
    let (process, upstream) = roles::start_upstream()?;
    let mut ways = vec![Way {
        name: DIRECT,
        address: upstream,
        process,
    }];
    for &name in wanted {
        let started = match name {
            RELAY => roles::start_relay(upstream, 0),
            RELAY_LOOKING => roles::start_relay(upstream, LOOKS),
            NGINX | HAPROXY if !is_in_path(name) => Err(io::Error::other("not in PATH")),
            NGINX => {
                let block = nginx_proxy_block("http", upstream, "");
                start_nginx(scratch, name, &block).map(|front| (front.process, front.address))
            }
            HAPROXY => start_haproxy(scratch, upstream).map(|front| (front.process, front.address)),
            _ => {
                let flow = flow_proxy(plan, scratch, name, upstream, workers);
                flow.start().map(|front| (front.process, front.address))
            }
        };
        match started {
            Ok((process, address)) => ways.push(Way {
                name,
                address,
                process,
            }),
            Err(error) => eprintln!("bench: {name} is left out: {error}"),
        }
    }
    Ok(ways)
}

/// How flow-proxy is started in front of `upstream`: at WARNING, or at INFO for that row.
pub fn flow_proxy<'a>(
    plan: &'a Plan,
    scratch: &'a Scratch,
    name: &str,
    upstream: SocketAddr,
    workers: Option<u32>,
) -> FlowProxy<'a> {
    FlowProxy {
        binary: &plan.binary,
        scratch,
        target: format!("http://{upstream}"),
        log_level: if name == FLOW_INFO { "INFO" } else { "WARNING" },
        workers,
        ca_file: None,
    }
}
