//! Which requests are let in: those from this machine and under its own names, not those of web pages.
//!
//! A browser page can send requests to a loopback address (DNS rebinding, or plainly with an
//! Origin). Such a page must not spend the user's credentials. Pure, except that the machine's
//! name is read once.

use std::net::{IpAddr, Ipv6Addr};

use super::route::TargetForm;
use crate::http1::error::HttpError;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// Schemes of pages that come over the web, or that a web page can make. Everything else is an
/// editor, a desktop application or a browser's extension.
const WEB_SCHEMES: [&str; 8] = ["http", "https", "ws", "wss", "ftp", "data", "blob", "about"];

/// Decides by Host and Origin.
#[derive(Debug, Clone)]
pub enum AccessPolicy {
    /// Bound to a loopback address: only local names.
    Local {
        machine: String,
        /// Further names, in lower case.
        allowed: Vec<String>,
    },
    /// Bound elsewhere: every client that reaches the port.
    Open,
}

impl AccessPolicy {
    /// The policy of a proxy that is bound to `address`, with further names that Host may have.
    pub fn new(address: IpAddr, allowed: &[String]) -> AccessPolicy {
        if !is_loopback(address) {
            return AccessPolicy::Open;
        }
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_ascii_lowercase();
        AccessPolicy::Local {
            machine,
            allowed: allowed.to_vec(),
        }
    }

    /// Checks Host and Origin of a request.
    ///
    /// # Errors
    /// 403: which of the two is not allowed.
    pub fn check(&self, fields: &HeaderBlock, form: TargetForm) -> Result<(), HttpError> {
        // In absolute form the target's host has been compared already.
        let is_checked = form == TargetForm::Origin;
        if is_checked && !self.allows_host(fields.value(KnownHeader::Host)) {
            let host = shown(fields.value(KnownHeader::Host).unwrap_or_default());
            return Err(HttpError::forbidden(format!(
                "the Host '{host}' names neither this machine nor a private address: use \
                 http://localhost:PORT or the machine's own name as the base URL, or start the \
                 proxy with --allow-host {}",
                host_of(&host)
            )));
        }
        for origin in fields.values(KnownHeader::Origin) {
            if !std::str::from_utf8(origin).is_ok_and(|origin| self.allows_origin(origin)) {
                let origin = shown(origin);
                return Err(HttpError::forbidden(format!(
                    "requests from web pages are not let in (Origin '{origin}'): they would spend \
                     the credentials of the page's visitors"
                )));
            }
        }
        Ok(())
    }

    /// Whether a request with this Host may come in. `None`: an HTTP/1.0 request without one, which
    /// no browser sends.
    pub fn allows_host(&self, host: Option<&[u8]>) -> bool {
        match (self, host) {
            (AccessPolicy::Open, _) | (_, None) => true,
            (AccessPolicy::Local { .. }, Some(host)) if is_common_local_host(host) => true,
            (AccessPolicy::Local { machine, allowed }, Some(host)) => std::str::from_utf8(host)
                .is_ok_and(|host| {
                    let host = host_of(host);
                    is_local(host, machine) || is_host_of_container(host) || {
                        let host = host.strip_suffix('.').unwrap_or(host);
                        allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
                    }
                }),
        }
    }

    /// Whether a request with this Origin may come in. Applications send none.
    pub fn allows_origin(&self, origin: &str) -> bool {
        let AccessPolicy::Local { machine, .. } = self else {
            return true;
        };
        // RFC 6454 section 7: a serialized origin, or "null" for a page that hides where it is from.
        let Some((scheme, rest)) = origin.split_once(':') else {
            return false;
        };
        if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
            return false;
        }
        let is_web = WEB_SCHEMES
            .iter()
            .any(|web| web.eq_ignore_ascii_case(scheme));
        !is_web
            || rest
                .strip_prefix("//")
                .is_some_and(|host| is_local(host_of(host), machine))
    }
}

fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// A value from outside as a message shows it: 64 characters at most, printable ASCII.
fn shown(value: &[u8]) -> String {
    let value = value.iter().take(64).map(|&byte| match byte {
        b' '..=b'~' if byte != b'\'' => byte as char,
        _ => '?',
    });
    value.collect()
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
/// RFC 4193, RFC 4291 section 2.5.6.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
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

    fn access() -> AccessPolicy {
        AccessPolicy::Local {
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
            "[::ffff:127.0.0.1]",
            "host.docker.internal:8899",
            "Host.Containers.Internal",
            "gateway.docker.internal",
            "host.lima.internal",
            "proxy.corp.example:8899",
            "PROXY.corp.example.",
            "[2001:db8::7]:1",
        ] {
            assert!(access().allows_host(Some(host.as_bytes())), "{host}");
        }
        assert!(access().allows_host(None));
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
            assert!(!access().allows_host(Some(host.as_bytes())), "{host}");
        }
        assert!(AccessPolicy::Open.allows_host(Some(b"evil.example")));
    }

    #[test]
    fn origins_of_applications_and_local_pages_are_let_in() {
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://tauri.localhost",
            "tauri://localhost",
            "vscode-webview://abc",
            "app://obsidian.md",
            "file://",
            "vscode-file://vscode-app",
            "http://[::1]:5173",
        ] {
            assert!(access().allows_origin(origin), "{origin}");
        }
    }

    #[test]
    fn origins_of_web_pages_do_not() {
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "null",
            "",
            "://x",
            "HTTPS://evil.example",
            "http:localhost",
            "https://localhost@evil.example",
            "a b://c",
        ] {
            assert!(!access().allows_origin(origin), "{origin}");
        }
        assert!(AccessPolicy::Open.allows_origin("https://evil.example"));
    }
}
