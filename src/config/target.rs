//! The target URL, which requests are forwarded to: checked once at the start and split into its parts.
//!
//! Owns what a target URL may be. Out of scope: resolving and connecting (`upstream`), and joining the
//! base path with a request's path (`proxy`). Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::is_localhost;
use super::shown::{NOT_SHOWN, may_hold_secret, quoted, shown};

/// What a target URL may be, for errors.
const ALLOWED: &str = "https://HOST[:PORT][/PATH], or http:// where HOST is a loopback address or \
                       --allow-http-target is given";

/// A target URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// The value of `Host`: the host in lower case, IPv6 in brackets, and the port unless it is the
    /// default of the scheme.
    pub authority: String,
    /// The host in lower case, IPv6 without brackets.
    pub host: String,
    /// The port; the default of the scheme where the URL names none. Never 0.
    pub port: u16,
    /// The path without trailing slash; empty for the root.
    pub base_path: String,
}

impl Target {
    /// Splits a target URL into its parts (RFC 3986 section 3).
    ///
    /// # Errors
    ///
    /// One line that quotes the URL and says what is allowed. It quotes nothing of user information,
    /// query and fragment: they may hold a password.
    pub fn parse(url: &str) -> Result<Target, String> {
        let error = |what: &str| format!("{} {what} ({ALLOWED})", shown_url(url));
        let (https, rest) = scheme(url).ok_or_else(|| error("is not a target URL"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(error("holds a user or password"));
        }
        if path.contains(['?', '#']) {
            return Err(error("has a query or a fragment"));
        }
        let (host, port) = host_and_port(authority).map_err(|what| error(&what))?;
        let base_path = path.trim_end_matches('/');
        check_path(base_path).map_err(|what| error(&what))?;
        let default_port = if https { 443 } else { 80 };
        let port = port.unwrap_or(default_port);
        let mut authority = host.in_authority();
        if port != default_port {
            authority.push_str(&format!(":{port}"));
        }
        Ok(Target {
            https,
            authority,
            host: host.bare(),
            port,
            base_path: base_path.to_owned(),
        })
    }

    /// Returns the host's address; `None` where the host is a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the host is a loopback address or a name of one.
    pub fn is_loopback(&self) -> bool {
        match self.address() {
            Some(address) => address.is_loopback(),
            None => is_localhost(&self.host),
        }
    }

    /// Whether requests, and the token with them, go over a network without encryption.
    pub fn sends_in_clear(&self) -> bool {
        !self.https && !self.is_loopback()
    }

    /// Returns what is wrong with a target that sends in clear where that is not allowed.
    pub fn clear_text_problem(&self) -> String {
        let url = quoted(&self.to_string());
        format!("{url} would send the token in clear text ({ALLOWED})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

/// Returns the URL as an error may quote it, on one line: without query and fragment, and not at all
/// where it may hold a password or a secret.
fn shown_url(url: &str) -> String {
    if url.contains('@') {
        return "the URL (not shown, it holds an '@')".to_owned();
    }
    if may_hold_secret(url) {
        return NOT_SHOWN.to_owned();
    }
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let rest = if end < url.len() { "…" } else { "" };
    format!("'{}{rest}'", shown(&url[..end]))
}

/// Returns whether the scheme is `https`, and what follows `://`.
fn scheme(url: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    // RFC 3986 section 3.1: schemes are case-insensitive.
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some((true, rest)),
        "http" => Some((false, rest)),
        _ => None,
    }
}

/// The kinds of hosts of RFC 3986 section 3.2.2.
enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    /// Returns the host without brackets.
    fn bare(&self) -> String {
        match self {
            Host::Name(name) => name.clone(),
            Host::V4(address) => address.to_string(),
            Host::V6(address) => address.to_string(),
        }
    }

    fn in_authority(&self) -> String {
        match self {
            Host::V6(address) => format!("[{address}]"),
            other => other.bare(),
        }
    }
}

fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (literal, after) = rest.split_once(']').ok_or("lacks a ']' after its host")?;
            let address = literal.parse().map_err(|_| "has a bad IPv6 address")?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or("has a bad port")?),
            };
            (Host::V6(address), port)
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("has an IPv6 address without brackets".to_owned());
            }
            Some((host, port)) => (name_or_v4(host)?, Some(port)),
            None => (name_or_v4(authority)?, None),
        },
    };
    Ok((host, port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits_only && port > 0 => Ok(port),
        _ => Err("has a bad port".to_owned()),
    }
}

fn name_or_v4(host: &str) -> Result<Host, String> {
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if !host.is_ascii() {
        return Err("has a host outside ASCII: write it as xn--…".to_owned());
    }
    let host = host.to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or_default();
    // Resolvers read 127.1, 2130706433 and 0x7f.1 as IPv4 addresses: a host whose last label is a number
    // is an address, and only the usual notation is unambiguous.
    if last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit()) {
        let address = host.parse().map_err(|_| "has a bad host")?;
        return Ok(Host::V4(address));
    }
    let label_ok = |label: &str| {
        // RFC 1035 section 2.3.4: 63 octets a label. '_' is common in container networks.
        let chars_ok = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && chars_ok
    };
    if host.len() > 253 || !host.split('.').all(label_ok) {
        return Err("has a bad host".to_owned());
    }
    Ok(Host::Name(host))
}

/// Checks that a path has only the characters of RFC 3986 section 3.3 and no dot segment in any
/// encoding.
fn check_path(path: &str) -> Result<(), String> {
    let is_pchar =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let escapes_ok = path.split('%').skip(1).all(|after| {
        let hex = after.bytes().take(2).filter(u8::is_ascii_hexdigit);
        hex.count() == 2
    });
    if !path.bytes().all(is_pchar) || !escapes_ok {
        return Err("has a bad character in its path".to_owned());
    }
    let decoded = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/");
    if decoded
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return Err("has a dot segment in its path".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
