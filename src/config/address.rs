//! Addresses to listen on, and where a listener on them can be reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How [`Host::Default`] is written.
const DEFAULT: &str = "127.0.0.1,[::1]";

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// 127.0.0.1, and ::1 on the same port where that can be had.
    Default,
    /// 127.0.0.1 and ::1, on the same port. A machine without IPv6 has only the former.
    Localhost,
    /// This address alone.
    Address(IpAddr),
}

impl Host {
    /// Reads what Display writes; an IPv6 address may stand in brackets. Names are not resolved: who
    /// can reach the proxy must not depend on a name server. `None`: it is something else.
    pub fn parse(text: &str) -> Option<Host> {
        if text.eq_ignore_ascii_case("localhost") {
            return Some(Host::Localhost);
        }
        if text == DEFAULT {
            return Some(Host::Default);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse().ok().map(Host::Address)
    }

    /// Returns the address that is bound first.
    pub fn first(self) -> IpAddr {
        match self {
            Host::Default | Host::Localhost => Ipv4Addr::LOCALHOST.into(),
            Host::Address(address) => address,
        }
    }

    /// Returns the address that is bound beside the first one, if any.
    pub fn second(self) -> Option<IpAddr> {
        match self {
            Host::Default | Host::Localhost => Some(Ipv6Addr::LOCALHOST.into()),
            Host::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Default => f.write_str(DEFAULT),
            Host::Localhost => f.write_str("localhost"),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Returns an address at which a listener on `address` can be reached from this machine: loopback
/// where it listens on all addresses.
pub fn connectable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn hosts_are_addresses_or_localhost() {
        for (text, shown) in [
            ("LocalHost", "localhost"),
            ("0.0.0.0", "0.0.0.0"),
            ("::1", "::1"),
            ("[::]", "::"),
            ("127.0.0.1,[::1]", "127.0.0.1,[::1]"),
        ] {
            assert_eq!(host(text).to_string(), shown);
            assert_eq!(Host::parse(shown), Host::parse(text));
        }
        for bad in [
            "example.com",
            "127.1",
            "[::1",
            "1.2.3.4:80",
            "*",
            "",
            "::1,127.0.0.1",
        ] {
            assert_eq!(Host::parse(bad), None, "{bad}");
        }
    }
}
