//! Addresses to listen on, and where a listener on them can be reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

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

    /// Whether a connection to `address` reaches a listener here. Any loopback address counts as one
    /// with the others, and so does the unspecified address, at which loopback answers.
    pub fn is_reached_at(self, address: IpAddr) -> bool {
        let first = self.first();
        let is_loopback = address.is_loopback() || address.is_unspecified();
        let everywhere = first.is_unspecified();
        (is_loopback && (first.is_loopback() || everywhere))
            || address == first
            || (everywhere && is_of_this_machine(address))
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

/// Whether `name` is a name of the loopback addresses (RFC 6761 section 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Returns what a name of the loopback addresses means. A name server is not asked: what it says must not
/// decide where a token goes that travels in clear text because the target is loopback.
pub fn localhost_addresses(name: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let addresses = || {
        vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]
    };
    is_localhost(name).then(addresses)
}

/// Whether an interface of this machine has `address`. Nothing is sent: connecting a datagram socket
/// only chooses the address to send from, which for an own address is that address.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    chosen.is_ok_and(|chosen| chosen.ip() == address)
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

/// An address, or a block of addresses (RFC 4632 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    network: IpAddr,
    /// The bits of `network` that count.
    bits: u32,
}

impl Block {
    /// Reads an address or `network/bits`; an IPv6 address may stand in brackets.
    pub fn parse(text: &str) -> Option<Block> {
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let network: IpAddr = network.trim_matches(['[', ']']).parse().ok()?;
        let width = width(network);
        let bits: u32 = bits.unwrap_or(width);
        // RFC 4291 section 2.5.5.2: the last 32 bits are an IPv4 address.
        let block = match network.to_canonical() {
            IpAddr::V4(v4) if network.is_ipv6() && bits >= 96 => Block {
                network: v4.into(),
                bits: bits - 96,
            },
            _ => Block { network, bits },
        };
        (bits <= width).then_some(block)
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let bits = |address| match address {
            IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(v4)),
            IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
        };
        let ignored = width(address) - self.bits.min(width(address));
        self.network.is_ipv4() == address.is_ipv4()
            && (bits(address) ^ bits(self.network))
                .checked_shr(ignored)
                .unwrap_or(0)
                == 0
    }
}

impl fmt::Display for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.network) {
            return self.network.fmt(formatter);
        }
        write!(formatter, "{}/{}", self.network, self.bits)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
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

    #[test]
    fn loopback_reaches_listeners_on_loopback_and_on_all_addresses() {
        for (host_text, address, is_reached) in [
            ("127.0.0.1,[::1]", "127.0.0.1", true),
            ("127.0.0.1,[::1]", "127.0.0.9", true),
            ("localhost", "::1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "192.0.2.1", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("::", "::1", true),
            ("0.0.0.0", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "127.0.0.1", false),
        ] {
            let reached = host(host_text).is_reached_at(address.parse().unwrap());
            assert_eq!(reached, is_reached, "{host_text} {address}");
        }
    }
}
