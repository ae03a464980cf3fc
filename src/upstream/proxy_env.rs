//! Which proxy is used for the target, if any. The variables are read as curl reads them.

use std::net::IpAddr;

use ureq::{Proxy, ProxyProtocol};

use crate::config::address::Block;
use crate::config::proxy_variables::ProxyVariables;
use crate::config::shown::shown;
use crate::config::target::Target;

/// Where the choice of a proxy comes from.
#[derive(Debug, Clone)]
pub enum ProxySettings {
    /// No proxy, whatever the variables say.
    Direct,
    /// The proxy that the variables name for this target, if any.
    FromVariables(Target, ProxyVariables),
}

/// The variables that name a proxy for `https` targets. Of each source the first one that is set counts;
/// an empty one says that there is no proxy.
const FOR_HTTPS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const FOR_HTTP: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that name hosts without a proxy.
const NAMING_HOSTS: [&str; 2] = ["no_proxy", "NO_PROXY"];

impl ProxySettings {
    /// Returns the proxy for the target, if there is one. A loopback target has none: a proxy would get
    /// the token in clear text, and would connect to a loopback address of its own.
    ///
    /// # Errors
    /// One line for the user: the variable names SOCKS version 4 or is not the URL of a proxy.
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, String> {
        let ProxySettings::FromVariables(target, variables) = self else {
            return Ok(None);
        };
        let names = if target.https { FOR_HTTPS } else { FOR_HTTP };
        let is_excepted = || {
            let hosts = first_set(variables, &NAMING_HOSTS);
            hosts.is_some_and(|(_, _, hosts)| excepts(hosts, &target.host))
        };
        match first_set(variables, &names) {
            Some((place, name, url)) if !url.is_empty() => {
                if target.is_loopback() || is_excepted() {
                    return Ok(None);
                }
                let proxy = parse(url).map_err(|error| format!("{place}{name}: {error}"))?;
                Ok(Some(proxy))
            }
            _ => Ok(None),
        }
    }

    /// Returns the proxy for the target as `host:port`, if there is one.
    ///
    /// # Errors
    /// One line for the user: the variable names SOCKS version 4 or is not the URL of a proxy.
    pub fn proxy_name(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy()?;
        Ok(proxy.map(|proxy| format!("{}:{}", shown(proxy.host()), port(&proxy))))
    }
}

/// The port of a plain HTTP proxy whose URL names none: curl's, as for SOCKS.
const DEFAULT_HTTP_PORT: u16 = 1080;

/// Returns the port of `proxy`.
pub(super) fn port(proxy: &Proxy) -> u16 {
    let is_named = proxy.uri().port().is_some();
    if proxy.protocol() == ProxyProtocol::Http && !is_named {
        return DEFAULT_HTTP_PORT;
    }
    proxy.port()
}

/// Returns the first of the variables `names` that is set: the place of its source, name and value.
fn first_set<'v>(
    variables: &'v ProxyVariables,
    names: &[&'static str],
) -> Option<(&'static str, &'static str, &'v str)> {
    variables.sources().into_iter().find_map(|(place, list)| {
        names.iter().find_map(|name| {
            // The last of two lines of `.env` counts, as in shells.
            let (_, value) = list.iter().rfind(|(known, _)| known == name)?;
            Some((place, *name, value.as_str()))
        })
    })
}

/// Reads the URL of a proxy. No error quotes it: it may hold a password.
fn parse(url: &str) -> Result<Proxy, &'static str> {
    if url.to_ascii_lowercase().starts_with("socks4") {
        return Err("SOCKS version 4 is not supported, use socks5://");
    }
    // What follows would be no part of the password, and the rest of it the proxy's host.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if let Some((_, behind)) = rest.split_once(['/', '?', '#'])
        && behind.contains('@')
    {
        return Err("its user or password holds '/', '?' or '#': write %2F, %3F or %23");
    }
    Proxy::new(url)
        .map_err(|_| "its value is not a proxy's URL (http://host:port, socks5://host:port)")
}

/// Whether `hosts`, the value of `NO_PROXY`, covers `host`: `*` alone, or entries with commas or blanks
/// between them, each a domain that covers what is below it, an address or a block of addresses.
fn excepts(hosts: &str, host: &str) -> bool {
    if hosts == "*" {
        return true;
    }
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let address: Option<IpAddr> = host.parse().ok();
    hosts
        .split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty())
        .any(|entry| match address {
            Some(address) => {
                // To curl, 0 bits are all of them.
                let entry = entry.strip_suffix("/0").unwrap_or(entry);
                Block::parse(entry).is_some_and(|block| block.contains(address))
            }
            None => is_in_domain(host, entry),
        })
}

fn is_in_domain(host: &str, domain: &str) -> bool {
    let domain = domain.trim_start_matches('.').trim_end_matches('.');
    let Some(at) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let (before, end) = (&host.as_bytes()[..at], &host.as_bytes()[at..]);
    !domain.is_empty()
        && end.eq_ignore_ascii_case(domain.as_bytes())
        && (before.is_empty() || before.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        list.iter().map(owned).collect()
    }

    /// What is used for a target with these variables in the environment and in `.env`.
    fn used(
        target: &str,
        environment: &[(&str, &str)],
        dotenv: &[(&str, &str)],
    ) -> Result<Option<String>, String> {
        let variables = ProxyVariables {
            environment: variables(environment),
            dotenv: variables(dotenv),
        };
        ProxySettings::FromVariables(Target::parse(target).unwrap(), variables).proxy_name()
    }

    #[test]
    fn the_variable_of_the_scheme_goes_before_the_one_for_all() {
        let (own, all) = ("http://own:1", "http://all:2");
        for (target, list, expected) in [
            (
                "https://a.example",
                &[("https_proxy", own), ("all_proxy", all)][..],
                Some("own:1"),
            ),
            (
                "https://a.example",
                &[("ALL_PROXY", all), ("HTTPS_PROXY", own)],
                Some("own:1"),
            ),
            (
                "https://a.example",
                &[("HTTPS_PROXY", all), ("https_proxy", own)],
                Some("own:1"),
            ),
            (
                "https://a.example",
                &[("http_proxy", own), ("ALL_PROXY", all)],
                Some("all:2"),
            ),
            ("https://a.example", &[("http_proxy", own)], None),
            ("https://a.example", &[("HTTP_PROXY", own)], None),
            (
                "http://a.example",
                &[("HTTP_PROXY", own), ("HTTPS_PROXY", all)],
                Some("own:1"),
            ),
            ("http://a.example", &[("https_proxy", own)], None),
            (
                "https://a.example",
                &[("https_proxy", ""), ("ALL_PROXY", all)],
                None,
            ),
            (
                "https://a.example",
                &[("https_proxy", own), ("no_proxy", "")],
                Some("own:1"),
            ),
            ("https://a.example", &[], None),
        ] {
            let got = used(target, list, &[]);
            assert_eq!(got, Ok(expected.map(str::to_owned)), "{target} {list:?}");
        }
    }

    #[test]
    fn a_proxy_without_a_port_has_curls() {
        for (url, expected) in [
            ("http://one", "one:1080"),
            ("one", "one:1080"),
            ("http://me:fake@one/", "one:1080"),
            ("http://one:80", "one:80"),
            ("https://one", "one:443"),
            ("socks5://one", "one:1080"),
        ] {
            let got = used("https://example.com", &[("HTTPS_PROXY", url)], &[]);
            assert_eq!(got, Ok(Some(expected.to_owned())), "{url}");
        }
    }

    #[test]
    fn the_environment_goes_before_dotenv() {
        let (one, other) = ("http://one:1", "http://other:2");
        let url = "https://example.com";
        let used = |environment: &[_], dotenv: &[_]| used(url, environment, dotenv).unwrap();
        assert_eq!(used(&[], &[("https_proxy", other)]).unwrap(), "other:2");
        let by_all = [("ALL_PROXY", one)];
        assert_eq!(used(&by_all, &[("https_proxy", other)]).unwrap(), "one:1");
        assert_eq!(
            used(&[("https_proxy", "")], &[("https_proxy", other)]),
            None
        );
        let no_proxy = ("NO_PROXY", "a.example,example.com");
        assert_eq!(used(&[("HTTPS_PROXY", one)], &[no_proxy]), None);
        let narrower = [("no_proxy", "x"), ("HTTPS_PROXY", one)];
        assert_eq!(used(&narrower, &[no_proxy]).unwrap(), "one:1");
    }

    #[test]
    fn no_proxy_covers_domains_addresses_and_blocks() {
        for (hosts, host) in [
            ("*", "a.example"),
            ("a.example", "a.example"),
            ("example", "a.example"),
            (".example", "a.example"),
            ("EXAMPLE.", "a.Example"),
            ("x, corp.example", "flow.corp.example"),
            ("x corp.example", "flow.corp.example"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("10.1.2.3/0", "10.1.2.3"),
            ("fd00::/8", "[fd12::1]"),
            ("[fd12::1]", "[fd12::1]"),
        ] {
            assert!(excepts(hosts, host), "{hosts:?} {host}");
        }
        for (hosts, host) in [
            ("", "a.example"),
            (",", "a.example"),
            ("x,*", "a.example"),
            ("*.example", "a.example"),
            ("0.0.0.0/0", "10.1.2.3"),
            ("::/0", "[fd12::1]"),
            (".", "a.example"),
            ("ample", "a.example"),
            ("b.a.example", "a.example"),
            ("a.example", "10.1.2.3"),
            ("2.3", "10.1.2.3"),
            ("10.0.0.0/16", "10.1.2.3"),
            ("10.0.0.0/x", "10.0.0.0"),
            ("10.0.0.0/33", "10.0.0.0"),
            ("fd00::/16", "[fd12::1]"),
            ("10.0.0.0/8", "[fd12::1]"),
            ("10.0.0.0/8", "a.example"),
        ] {
            assert!(!excepts(hosts, host), "{hosts:?} {host}");
        }
    }

    #[test]
    fn a_loopback_target_has_no_proxy() {
        for target in [
            "http://127.0.0.1:1",
            "https://localhost",
            "http://a.localhost",
            "http://[::1]",
        ] {
            for value in ["http://one:1", "socks4://one:1"] {
                assert_eq!(
                    used(target, &[("ALL_PROXY", value)], &[]),
                    Ok(None),
                    "{target}"
                );
            }
        }
    }

    #[test]
    fn a_bad_variable_is_named_with_its_place_and_not_quoted() {
        for url in [
            "http://user:hush/x@proxy:1",
            "http://user:hush#x@proxy:1",
            "user:hush?@proxy:1",
            "http://hush/@proxy",
        ] {
            let error = used("https://example.com", &[("ALL_PROXY", url)], &[]).unwrap_err();
            let start = "ALL_PROXY: its user or password holds";
            assert!(
                error.starts_with(start) && !error.contains("hush"),
                "{error}"
            );
        }
        let bad = [("ALL_PROXY", "http://user:hush@")];
        let error = used("https://example.com", &[], &bad).unwrap_err();
        assert!(
            error.starts_with(".env: ALL_PROXY: its value is not"),
            "{error}"
        );
        assert!(!error.contains("hush"), "{error}");
    }
}
