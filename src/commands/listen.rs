//! Binds the addresses that the proxy listens on.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use super::report::Failure;
use crate::config::address::Host;
use crate::server::Server;

/// Binds the addresses of `host`; on port 0 all get the port that the system gave to the first one.
pub(super) fn bind(host: Host, port: u16) -> Result<Server, Failure> {
    let first = SocketAddr::new(host.first(), port);
    let mut server =
        Server::bind(first).map_err(|error| Failure::Running(cannot_listen(first, &error)))?;
    let Some(second) = host.second() else {
        return Ok(server);
    };
    let second = SocketAddr::new(second, server.address().port());
    match server.bind_also(second) {
        Ok(()) => {}
        Err(error) if is_without_ipv6(&error) => log::debug!("No IPv6 on this machine: {error}"),
        Err(error) if host == Host::Default => {
            let problem = cannot_listen(second, &error);
            log::warn!(
                "{problem}. Going on without it: use 127.0.0.1 in the place of localhost, which may \
                 mean ::1 to a client"
            );
        }
        Err(error) => return Err(Failure::Running(cannot_listen(second, &error))),
    }
    Ok(server)
}

/// Whether the machine has no IPv6 loopback address.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)
    )
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it (sudo ss -ltnp tells which) or choose another --port"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{hint}")
}
