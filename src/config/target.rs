//! Where requests are forwarded to: the target URL, checked once at the start and taken apart.
//!
//! Owns what a target URL may be. Out of scope: resolving and connecting (`proxy::upstream`), and
//! joining the base path with a request's path (`proxy`). Pure; any thread may call it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What [`Target::parse`] accepts, as its errors say it.
const ALLOWED: &str = "https://HOST[:PORT][/PATH], or http:// where HOST is a loopback address";

/// A target URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// The value of `Host`: host in lower case, IPv6 in brackets, the port unless it is the
    /// scheme's default.
    pub authority: String,
    /// The host in lower case, IPv6 without brackets.
    pub host: String,
    /// The port, the scheme's default where the URL names none. Never 0.
    pub port: u16,
    /// The path without trailing slash; empty for the root.
    pub base_path: String,
}

impl Target {
    /// Takes a target URL apart (RFC 3986 section 3).
    ///
    /// # Errors
    ///
    /// One line that quotes the URL and says what is allowed. Of user information, queries and
    /// fragments nothing is quoted: they may hold a password.
    pub fn parse(url: &str) -> Result<Target, String> {
        let fault = |what: &str| format!("{} {what} ({ALLOWED})", shown(url));
        let (https, rest) = scheme(url).ok_or_else(|| fault("is not a target URL"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(fault("holds a user or password"));
        }
        if path.contains(['?', '#']) {
            return Err(fault("has a query or a fragment"));
        }
        let (host, port) = host_and_port(authority).map_err(|what| fault(&what))?;
        let base_path = path.trim_end_matches('/');
        check_path(base_path).map_err(|what| fault(&what))?;
        if !https && !host.is_loopback() {
            return Err(fault("would send the token in clear text"));
        }
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
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

/// The URL as an error may quote it: nothing where it may hold a password, no query, no fragment,
/// on one line.
fn shown(url: &str) -> String {
    if url.contains('@') {
        return "the URL (not shown, it holds an '@')".to_owned();
    }
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let rest = if end < url.len() { "…" } else { "" };
    let head: String = url[..end].chars().flat_map(char::escape_debug).collect();
    format!("'{head}{rest}'")
}

/// Whether the scheme is `https`, and what follows `//`.
fn scheme(url: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    // RFC 3986 section 3.1: schemes are case-insensitive.
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some((true, rest)),
        "http" => Some((false, rest)),
        _ => None,
    }
}

/// A host as RFC 3986 section 3.2.2 tells them apart.
enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            // RFC 6761 section 6.3: localhost and all names under it are loopback.
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::V4(address) => address.is_loopback(),
            Host::V6(address) => address.is_loopback(),
        }
    }

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
    // Resolvers take 127.1, 2130706433 and 0x7f.1 for IPv4 addresses: what ends in a number is one,
    // and must be written so that everybody reads the same one.
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

/// RFC 3986 section 3.3: the characters of a path, and no dot segments, however they are encoded.
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
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn refused(url: &str) -> String {
        match Target::parse(url) {
            Ok(target) => panic!("{url} was taken for {target:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn the_default_target_is_taken_apart() {
        let target = parsed("https://flow.ciandt.com/flow-llm-proxy");
        let expected = Target {
            https: true,
            authority: "flow.ciandt.com".to_owned(),
            host: "flow.ciandt.com".to_owned(),
            port: 443,
            base_path: "/flow-llm-proxy".to_owned(),
        };
        assert_eq!(target, expected);
        assert_eq!(target.to_string(), "https://flow.ciandt.com/flow-llm-proxy");
    }

    #[test]
    fn scheme_and_host_are_case_insensitive_and_the_path_is_not() {
        let target = parsed("HTTPS://Example.COM/Base");
        assert_eq!(target.to_string(), "https://example.com/Base");
    }

    #[test]
    fn trailing_slashes_go() {
        assert_eq!(parsed("https://example.com/").base_path, "");
        assert_eq!(parsed("https://example.com").base_path, "");
        assert_eq!(parsed("https://example.com/a/b//").base_path, "/a/b");
    }

    #[test]
    fn the_default_port_is_left_out_of_the_authority_and_others_are_not() {
        assert_eq!(parsed("https://example.com:443/x").authority, "example.com");
        assert_eq!(parsed("http://localhost:80").authority, "localhost");
        let other = parsed("https://example.com:8443");
        assert_eq!(
            (other.authority.as_str(), other.port),
            ("example.com:8443", 8443)
        );
        assert_eq!(parsed("http://localhost:443").authority, "localhost:443");
    }

    #[test]
    fn ipv6_has_brackets_in_the_authority_only() {
        let target = parsed("http://[0:0::1]:8080/x");
        assert_eq!((target.host.as_str(), target.port), ("::1", 8080));
        assert_eq!(target.to_string(), "http://[::1]:8080/x");
    }

    #[test]
    fn http_is_for_loopback_hosts_alone() {
        for url in [
            "http://localhost:1",
            "http://flow.localhost",
            "http://127.0.0.1:9/x",
            "http://127.255.0.3",
            "http://[::1]",
        ] {
            assert!(!parsed(url).https);
        }
        for url in [
            "http://example.com",
            "http://notlocalhost",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::ffff:127.0.0.1]",
        ] {
            let error = refused(url);
            assert!(
                error.contains("clear text") && error.contains(url),
                "{error}"
            );
        }
    }

    #[test]
    fn userinfo_is_refused_and_never_quoted() {
        for url in [
            "https://bob:hunter2@example.com/x",
            "bob:hunter2@example.com",
            "ftp://bob:hunter2@example.com",
            "https://exa mple.com/bob:hunter2@x?",
        ] {
            let error = refused(url);
            assert!(
                !error.contains("hunter2") && !error.contains("bob"),
                "{error}"
            );
            assert!(error.contains(ALLOWED), "{error}");
        }
    }

    #[test]
    fn queries_and_fragments_are_refused_and_never_quoted() {
        for url in [
            "https://example.com/x?key=hunter2",
            "https://example.com#hunter2",
        ] {
            let error = refused(url);
            assert!(error.starts_with("'https://example.com"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for path in [
            "/..",
            "/a/../b",
            "/./a",
            "/%2e%2E/a",
            "/a/.%2e",
            "/a%2f..",
            "/a%5C..%5c",
        ] {
            let error = refused(&format!("https://example.com{path}"));
            assert!(error.contains("dot segment"), "{path}: {error}");
        }
        assert_eq!(
            parsed("https://example.com/.well-known/a..b").base_path,
            "/.well-known/a..b"
        );
    }

    #[test]
    fn malformed_urls_are_refused_on_one_line_with_what_is_allowed() {
        for url in [
            "",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "https:/example.com",
            "https://",
            "https:///path",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:+80",
            "https://example.com:65536",
            "https://::1/",
            "https://[::1",
            "https://[::1]x",
            "https://[fe80::1%eth0]",
            "https://[example]",
            "https://a..b",
            "https://example.com.",
            "https://exam ple.com",
            "https://127.1",
            "https://2130706433",
            "https://0x7f.0x1",
            "https://bücher.example",
            "https://example.com/a b",
            "https://example.com/a\nb",
            "https://example.com\\x",
            "https://example.com/%2",
            "https://example.com/%zz",
            " https://example.com",
        ] {
            let error = refused(url);
            assert!(error.contains(ALLOWED), "{url}: {error}");
            assert!(!error.contains('\n'), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_displayed_parses_to_the_same() {
        for url in [
            "https://a.example:8443/b%20c",
            "http://[::1]:80/",
            "http://127.0.0.1:1/x/",
        ] {
            let target = parsed(url);
            assert_eq!(parsed(&target.to_string()), target);
        }
    }
}
