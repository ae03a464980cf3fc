//! Which requests are let in: those to the proxy's own names, not those of web pages. And which page may
//! read a response.
//!
//! A web page can send requests to a loopback address, and must not spend the credentials of its
//! visitors. Each check stands in a file of its own. Called for each request, before its body is read.

use std::net::IpAddr;

use http::Method;

mod admin;
pub mod cors;
pub mod fetch_metadata;
pub mod host;
mod origin;
mod shown;

use self::cors::Cors;
use self::host::AllowedHosts;
use self::origin::AllowedOrigins;
use super::route::TargetForm;
use crate::config::address::Block;
use crate::http1::error::HttpError;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// Decides by Host, Origin and what else browsers say of a request.
#[derive(Debug, Clone)]
pub struct AccessPolicy {
    hosts: AllowedHosts,
    origins: AllowedOrigins,
    /// Callers beside loopback that may see the pages.
    admin_from: Vec<Block>,
    /// Further names of the proxy.
    allowed_hosts: Vec<String>,
}

impl AccessPolicy {
    /// The policy of a proxy that is bound to `address`, with further names that Host may have, and
    /// further origins whose pages may call, as browsers write them. Callers of `admin_from` may see the
    /// pages.
    pub fn new(
        address: IpAddr,
        hosts: &[String],
        origins: &[String],
        admin_from: &[Block],
    ) -> AccessPolicy {
        AccessPolicy {
            hosts: AllowedHosts::new(address, hosts),
            origins: AllowedOrigins::new(origins),
            admin_from: admin_from.to_vec(),
            allowed_hosts: hosts.to_vec(),
        }
    }

    /// Checks a request for `path`.
    ///
    /// # Errors
    /// 403: what is not allowed, and what lets it in.
    pub fn check(
        &self,
        method: &Method,
        fields: &HeaderBlock,
        path: &[u8],
        form: TargetForm,
    ) -> Result<(), HttpError> {
        // In absolute form the target's host has been compared already.
        if form == TargetForm::Origin {
            self.hosts.check(fields.value(KnownHeader::Host))?;
        }
        fetch_metadata::check_no_service_worker(fields)?;
        let mut origins = fields.values(KnownHeader::Origin);
        match (origins.next(), origins.next()) {
            (None, _) => fetch_metadata::check(method, fields, path, &self.origins),
            (Some(origin), None) => self.origins.check(origin),
            (Some(_), Some(_)) => Err(HttpError::forbidden(
                "there is more than one Origin: which page asks is not clear",
            )),
        }
    }

    /// Checks the caller of a page that is not open to all; `peer` is its address and port.
    ///
    /// # Errors
    /// 403: it may not see it.
    pub fn check_admin(&self, peer: &str, fields: &HeaderBlock) -> Result<(), HttpError> {
        admin::check((&self.admin_from, &self.allowed_hosts), peer, fields)
    }

    /// Whether the page of this origin may read the response to a request for `path`. The proxy's own
    /// pages are for themselves alone.
    pub fn cors(&self, origin: Option<&[u8]>, path: &[u8]) -> Cors {
        let is_own_page = path == b"/-" || path.starts_with(b"/-/");
        match origin.filter(|origin| !is_own_page && self.origins.allow(origin)) {
            Some(origin) => Cors::of(origin),
            None => Cors::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_rejected_on_whatever_address_the_proxy_listens() {
        for address in ["127.0.0.1", "::1", "0.0.0.0", "::", "192.168.1.20"] {
            let policy = AccessPolicy::new(address.parse().unwrap(), &[], &[], &[]);
            let is_let_in = |name, value| {
                let fields = HeaderBlock::of(&[("Host", "localhost"), (name, value)]);
                policy
                    .check(&Method::GET, &fields, b"/v1/models", TargetForm::Origin)
                    .is_ok()
            };
            for (name, value) in [
                ("Origin", "https://evil.example"),
                ("Origin", "null"),
                ("Sec-Fetch-Site", "cross-site"),
                ("Referer", "https://evil.example/"),
                ("Service-Worker", "script"),
            ] {
                assert!(!is_let_in(name, value), "{address} {name} {value}");
            }
            assert!(is_let_in("Origin", "http://localhost:3000"));
            assert!(is_let_in("Sec-Fetch-Mode", "cors"));
        }
    }
}
