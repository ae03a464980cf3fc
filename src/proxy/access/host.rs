//! Which names the proxy has: Host must be one of them, or a web page could reach a loopback address under
//! a name of its own (DNS rebinding). Pure, except that the machine's name is read once.

use std::net::{IpAddr, Ipv6Addr};

use super::shown::shown;
use crate::http1::error::HttpError;

/// Decides by Host.
#[derive(Debug, Clone)]
pub enum AllowedHosts {
    /// Bound to a loopback address: only local names.
    Local {
        machine: String,
        /// Further names, in lower case.
        allowed: Vec<String>,
    },
    /// Bound elsewhere: every name that leads to the port.
    All,
}

impl AllowedHosts {
    /// Of a proxy that is bound to `address`, with further names that Host may have.
    pub fn new(address: IpAddr, allowed: &[String]) -> AllowedHosts {
        if !is_loopback(address) {
            return AllowedHosts::All;
        }
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_ascii_lowercase();
        AllowedHosts::Local {
            machine,
            allowed: allowed.to_vec(),
        }
    }

    /// Checks the Host of a request.
    ///
    /// # Errors
    /// 403: it is not allowed.
    pub fn check(&self, host: Option<&[u8]>) -> Result<(), HttpError> {
        if self.allow(host) {
            return Ok(());
        }
        let host = shown(host.unwrap_or_default());
        Err(HttpError::forbidden(format!(
            "the Host '{host}' names neither this machine nor a private address: use \
             http://localhost:PORT or the machine's own name as the base URL, or start the \
             proxy with --allow-host {}",
            host_of(&host)
        )))
    }

    /// Whether a request with this Host may come in. `None`: an HTTP/1.0 request without one, which
    /// no browser sends.
    fn allow(&self, host: Option<&[u8]>) -> bool {
        match (self, host) {
            (AllowedHosts::All, _) | (_, None) => true,
            (AllowedHosts::Local { .. }, Some(host)) if is_common_local_host(host) => true,
            (AllowedHosts::Local { machine, allowed }, Some(host)) => std::str::from_utf8(host)
                .is_ok_and(|host| {
                    let host = host_of(host);
                    is_local(host, machine) || is_host_of_container(host) || {
                        let host = host.strip_suffix('.').unwrap_or(host);
                        allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
                    }
                }),
        }
    }
}

/// Whether a Host is an address, local by definition, or among the further names: no name server can
/// have led a page's visitor here under it.
pub fn leads_here(host: &[u8], allowed: &[String]) -> bool {
    std::str::from_utf8(host).is_ok_and(|host| {
        let host = host_of(host);
        let bare = host.trim_matches(['[', ']']);
        let name = host.strip_suffix('.').unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || is_local(host, "")
            || allowed
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(name))
    })
}

/// Whether it is what container engines call the machine that they run on.
fn is_host_of_container(host: &str) -> bool {
    let names = [
        "host.docker.internal",
        "gateway.docker.internal",
        "host.containers.internal",
        "host.lima.internal",
    ];
    names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Whether it is what nearly all clients send. Other hosts may be local too.
fn is_common_local_host(host: &[u8]) -> bool {
    let rest = host
        .strip_prefix(b"127.0.0.1")
        .or_else(|| host.strip_prefix(b"localhost"));
    match rest {
        Some([b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
        Some(rest) => rest.is_empty(),
        None => false,
    }
}

/// The host in `host[:port]`, brackets kept.
fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return match authority.split_once(']') {
            Some((host, rest)) if rest.is_empty() || is_port(rest) => &authority[..host.len() + 1],
            _ => authority,
        };
    }
    match authority.find(':') {
        Some(colon) if is_port(&authority[colon..]) => &authority[..colon],
        _ => authority,
    }
}

fn is_port(rest: &str) -> bool {
    rest.strip_prefix(':')
        .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_local(host: &str, machine: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_below_localhost = || {
        let suffix = host.len().checked_sub(".localhost".len());
        let suffix = suffix.and_then(|start| host.get(start..));
        suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(".localhost"))
    };
    let is_machine = !host.is_empty() && host.eq_ignore_ascii_case(machine);
    if host.eq_ignore_ascii_case("localhost") || is_below_localhost() || is_machine {
        return true;
    }
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match literal {
        Some(v6) => v6
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| is_private(address.into())),
        None => host
            .parse()
            .is_ok_and(|address| is_private(IpAddr::V4(address))),
    }
}

/// Loopback, or an address that no public name should lead to by accident: RFC 1918, RFC 3927,
/// RFC 4193, RFC 4291 section 2.5.6. IPv4-mapped IPv6 is none: browsers do not take it for local, and
/// so do not tell which site asks.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether `address` reaches only this machine; IPv4-mapped IPv6 included.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> AllowedHosts {
        AllowedHosts::Local {
            machine: "devbox".into(),
            allowed: vec!["proxy.corp.example".into(), "[2001:db8::7]".into()],
        }
    }

    #[test]
    fn local_hosts_are_let_in() {
        for host in [
            "localhost",
            "LOCALHOST:8899",
            "a.localhost",
            "localhost.",
            "127.0.0.1:8899",
            "127.1.2.3",
            "[::1]:8899",
            "[::1]",
            "10.0.0.8",
            "192.168.1.5:1",
            "172.16.0.1",
            "devbox",
            "DevBox:80",
            "[fd00::1]",
            "host.docker.internal:8899",
            "Host.Containers.Internal",
            "gateway.docker.internal",
            "host.lima.internal",
            "proxy.corp.example:8899",
            "PROXY.corp.example.",
            "[2001:db8::7]:1",
        ] {
            assert!(hosts().allow(Some(host.as_bytes())), "{host}");
        }
        assert!(hosts().allow(None));
    }

    #[test]
    fn other_hosts_do_not() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "8.8.8.8",
            "172.32.0.1",
            "",
            "127.0.0.1.evil.example",
            "[2001:db8::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]:8899",
            "::1",
            "localhost:evil",
            "[::1]evil",
            ".",
            "127.0.0.1:80:80",
            "0x7f.1",
            "xdevbox",
            "corp.example",
            "a.proxy.corp.example",
            "x.host.docker.internal",
        ] {
            assert!(!hosts().allow(Some(host.as_bytes())), "{host}");
        }
        assert!(AllowedHosts::All.allow(Some(b"evil.example")));
    }
}
