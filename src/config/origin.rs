//! Web origins, as browsers write them. Pure.

use std::net::Ipv6Addr;

/// The schemes whose default port browsers leave out.
const DEFAULT_PORTS: [(&str, &str); 2] = [("http", ":80"), ("https", ":443")];

/// A serialized origin, taken apart (RFC 6454 section 6.2): `https://app.example:8443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'t> {
    pub scheme: &'t str,
    /// An IPv6 address stands in brackets.
    pub host: &'t str,
}

impl<'t> Origin<'t> {
    /// Reads an origin exactly as browsers write it. `None` for anything else: upper case, a default
    /// port, userinfo, a path, a list, letters that are not ASCII, a dot at the end.
    pub fn parse(text: &'t str) -> Option<Origin<'t>> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
            || !scheme.bytes().all(is_scheme_byte)
        {
            return None;
        }
        let host_end = match authority.find(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, port) = authority.split_at(host_end);
        let is_default = DEFAULT_PORTS.contains(&(scheme, port));
        (is_host(host) && is_port_or_empty(port) && !is_default).then_some(Origin { scheme, host })
    }
}

/// Returns an origin as browsers write it: in lower case, without the scheme's default port. `None`: it
/// is no origin.
pub fn canonical(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let default_port = DEFAULT_PORTS.iter().find(|(scheme, _)| {
        let rest = text.strip_prefix(scheme);
        rest.is_some_and(|rest| rest.starts_with("://"))
    });
    let short = default_port.and_then(|(_, port)| text.strip_suffix(port));
    let short = short.unwrap_or(&text);
    Origin::parse(short).map(|_| short.to_owned())
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        let literal = literal.strip_suffix(']');
        return literal.is_some_and(|v6| {
            let address = v6.parse::<Ipv6Addr>();
            address.is_ok_and(|address| address.to_string() == v6)
        });
    }
    let is_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let mut labels = host.split('.');
    labels.all(|label| !label.is_empty() && label.bytes().all(is_byte))
}

fn is_port_or_empty(port: &str) -> bool {
    match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(number) => {
            let value = number.parse::<u16>();
            value.is_ok_and(|value| value != 0 && value.to_string() == number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, scheme, host) in [
            ("https://app.example:8443", "https", "app.example"),
            ("http://localhost", "http", "localhost"),
            ("http://127.0.0.1:1", "http", "127.0.0.1"),
            ("http://[::1]:65535", "http", "[::1]"),
            (
                "https://xn--bcher-kva.example",
                "https",
                "xn--bcher-kva.example",
            ),
            ("moz-extension://0a1b-2c", "moz-extension", "0a1b-2c"),
            ("http://a_b.example:443", "http", "a_b.example"),
        ] {
            assert_eq!(Origin::parse(text), Some(Origin { scheme, host }), "{text}");
            assert_eq!(canonical(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_browsers_do_not_write_is_no_origin() {
        for text in [
            "",
            "null",
            "*",
            "app.example",
            "://app.example",
            "1x://app.example",
            "https:app.example",
            "https://",
            "https://app.example/",
            "https://app.example?x",
            "https://app.example#x",
            "https://a@app.example",
            "https://*.example",
            "https://.example",
            "https://app..example",
            "https://app.example.",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:080",
            "https://app.example:65536",
            "https://app.example:+1",
            "https://app.example https://b.example",
            "https://app.example,https://b.example",
            "https://bücher.example",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[0::1]",
            "https://x[::1]",
            "https://[::1]]",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn case_and_default_ports_are_brought_into_the_form_of_browsers() {
        for (text, expected) in [
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("https://app.example:80", "https://app.example:80"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected));
            assert!(text == expected || Origin::parse(text).is_none(), "{text}");
        }
    }
}
