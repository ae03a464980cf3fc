//! Who may see the pages: callers on this machine, and at addresses that an option names. Pure.

use std::net::{IpAddr, SocketAddr};

use super::host;
use super::shown::shown;
use crate::config::address::Block;
use crate::http1::error::HttpError;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// What a front adds to a request: its caller is not the one who asks (RFC 7239, RFC 9110 section 7.6.3).
const ADDED_BY_FRONTS: [&[u8]; 4] = [b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"];

/// Checks the caller of a page; `peer` is its address and port.
///
/// # Errors
/// 403: it may not see it.
pub fn check(
    (blocks, allowed_hosts): (&[Block], &[String]),
    peer: &str,
    fields: &HeaderBlock,
) -> Result<(), HttpError> {
    let host = fields.value(KnownHeader::Host);
    if let Some(host) = host.filter(|host| !host::leads_here(host, allowed_hosts)) {
        return Err(HttpError::forbidden(format!(
            "the pages are shown at an address, not at a name that may lead anywhere ('{}'): open \
             http://127.0.0.1:PORT/-/, or start the proxy with --allow-host",
            shown(host)
        )));
    }
    let address = peer
        .parse()
        .map(|peer: SocketAddr| peer.ip().to_canonical());
    let front = ADDED_BY_FRONTS
        .iter()
        .find(|name| fields.find(name).is_some());
    match (address, front) {
        (Ok(address), None) if is_allowed(blocks, address) => Ok(()),
        (Ok(_), Some(name)) => Err(HttpError::forbidden(format!(
            "the pages are not shown through another proxy (the request has {}): ask at the machine \
             itself, http://127.0.0.1:PORT/-/",
            String::from_utf8_lossy(name)
        ))),
        (Ok(address), None) => Err(HttpError::forbidden(format!(
            "the pages are shown to callers on this machine, and {address} is not: start the proxy \
             with --admin-from {address}"
        ))),
        (Err(_), _) => Err(HttpError::forbidden("the caller has no address")),
    }
}

fn is_allowed(blocks: &[Block], address: IpAddr) -> bool {
    address.is_loopback() || blocks.iter().any(|block| block.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_known_by_their_address_and_fronts_by_their_fields() {
        let blocks = ["10.1.0.0/16", "fd00::7"].map(|text| Block::parse(text).unwrap());
        for (peer, fields, is_let_in) in [
            ("127.0.0.1:1", &[][..], true),
            ("127.9.9.9:1", &[], true),
            ("[::1]:1", &[], true),
            ("[::ffff:127.0.0.1]:1", &[], true),
            ("10.1.2.3:1", &[], true),
            ("[::ffff:10.1.2.3]:1", &[], true),
            ("[fd00::7]:1", &[], true),
            ("10.2.2.3:1", &[], false),
            ("[fd00::8]:1", &[], false),
            ("127.0.0.1:1", &[("X-Forwarded-For", "1.2.3.4")], false),
            ("127.0.0.1:1", &[("forwarded", "for=1.2.3.4")], false),
            ("10.1.2.3:1", &[("Via", "1.1 front")], false),
            ("127.0.0.1:1", &[("X-Real-IP", "127.0.0.1")], false),
            ("-", &[], false),
        ] {
            let checked = check((&blocks, &[]), peer, &HeaderBlock::of(fields));
            assert_eq!(checked.is_ok(), is_let_in, "{peer} {fields:?}");
        }
    }

    #[test]
    fn names_that_may_lead_anywhere_show_no_page() {
        for (host, is_let_in) in [
            ("127.0.0.1:8899", true),
            ("192.0.2.7:8899", true),
            ("[2001:db8::1]:8899", true),
            ("localhost", true),
            ("a.localhost:1", true),
            ("proxy.example:8899", true),
            ("other.example", false),
            ("host.docker.internal:8899", false),
            ("127.0.0.1.example", false),
        ] {
            let fields = HeaderBlock::of(&[("Host", host)]);
            let allowed = ["proxy.example".to_owned()];
            let checked = check((&[], &allowed), "127.0.0.1:1", &fields);
            assert_eq!(checked.is_ok(), is_let_in, "{host}");
        }
    }
}
