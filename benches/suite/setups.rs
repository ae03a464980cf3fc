//! What stands between the load client and the upstream: nothing, the relay, flow-proxy, nginx or
//! HAProxy. All of them run during a whole part and are measured alternately.

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
pub const RELAY_SPINNING: &str = "relay, spinning";
pub const FLOW: &str = "flow-proxy";
pub const FLOW_INFO: &str = "flow-proxy INFO";
pub const NGINX: &str = "nginx";
pub const HAPROXY: &str = "haproxy";

pub struct Setup {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The process that is measured: the upstream itself for `direct`.
    pub process: Process,
}

/// Non-blocking reads of the spinning relay before it blocks. More than eight hardly gain anything.
const SPINS: u32 = 8;
/// Enough for all streams of the SSE parts at the same time.
pub const STREAM_WORKERS: u32 = 600;

/// Starts an upstream and each proxy in `wanted`. One that does not start is left out, with a line on
/// stderr.
pub fn start(
    plan: &Plan,
    scratch: &Scratch,
    wanted: &[&'static str],
    workers: Option<u32>,
) -> io::Result<Vec<Setup>> {
    let (process, upstream) = roles::start_upstream()?;
    let mut setups = vec![Setup {
        name: DIRECT,
        address: upstream,
        process,
    }];
    for &name in wanted {
        let started = match name {
            RELAY => roles::start_relay(upstream, 0),
            RELAY_SPINNING => roles::start_relay(upstream, SPINS),
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
            Ok((process, address)) => setups.push(Setup {
                name,
                address,
                process,
            }),
            Err(error) => eprintln!("bench: {name} is left out: {error}"),
        }
    }
    Ok(setups)
}

/// How flow-proxy is started in front of `upstream`: at log level INFO for [`FLOW_INFO`], else WARNING.
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
