//! Which proxy is used for the target, if any, according to the proxy variables.

use ureq::{Proxy, ProxyProtocol};

use crate::config::proxy_variables::ProxyVariables;
use crate::config::target::Target;

/// Where the choice of a proxy comes from.
#[derive(Debug, Clone)]
pub enum ProxySettings {
    /// No proxy, whatever the variables say.
    Direct,
    /// The proxy that the variables name for this target, if any.
    FromVariables(Target, ProxyVariables),
}

/// The variables that can name a proxy: of each source, the first one that is set counts.
const NAMING_PROXY: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// The variables that name hosts without a proxy: the first one that is set counts.
const NAMING_HOSTS: [&str; 2] = ["NO_PROXY", "no_proxy"];

impl ProxySettings {
    /// Returns the proxy for the target, if there is one. A loopback target has none: a proxy would get
    /// the token in clear text, and would connect to a loopback address of its own.
    ///
    /// # Errors
    /// One line for the user: a variable names SOCKS version 4 or is not the URL of a proxy.
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, String> {
        let ProxySettings::FromVariables(target, variables) = self else {
            return Ok(None);
        };
        if target.is_loopback() || is_excepted(target, variables) {
            return Ok(None);
        }
        let mut first = None;
        for (place, variables) in variables.sources() {
            for name in NAMING_PROXY {
                if let Some(url) = value_of(variables, name) {
                    let proxy = parse(url).map_err(|error| format!("{place}{name}: {error}"))?;
                    first = first.or(Some(proxy));
                }
            }
        }
        Ok(first)
    }

    /// Returns the proxy for the target as `host:port`, if there is one.
    ///
    /// # Errors
    /// One line for the user: a variable names SOCKS version 4 or is not the URL of a proxy.
    pub fn proxy_name(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy()?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
    }
}

/// Reads the URL of a proxy. No error quotes it: it may hold a password.
fn parse(url: &str) -> Result<Proxy, &'static str> {
    if url.to_ascii_lowercase().starts_with("socks4") {
        return Err("SOCKS version 4 is not supported, use socks5://");
    }
    Proxy::new(url)
        .map_err(|_| "its value is not a proxy's URL (http://host:port, socks5://host:port)")
}

/// Whether the target is one of the hosts without a proxy.
fn is_excepted(target: &Target, variables: &ProxyVariables) -> bool {
    let set = variables.sources().into_iter().find_map(|(_, variables)| {
        NAMING_HOSTS
            .iter()
            .find_map(|name| value_of(variables, name))
    });
    let Some(hosts) = set else {
        return false;
    };
    // ureq matches hosts for a proxy only: any will do.
    let any = Proxy::builder(ProxyProtocol::Http);
    let proxy = hosts
        .split(',')
        .fold(any, |proxy, host| proxy.no_proxy(host));
    let uri = target.to_string().parse().unwrap_or_default();
    proxy.build().is_ok_and(|proxy| proxy.is_no_proxy(&uri))
}

fn value_of<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    // The last of two lines of `.env` counts, as in shells.
    let found = variables.iter().rfind(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
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
    fn the_environment_goes_before_dotenv() {
        let (one, other) = ("http://one:1", "http://other:2");
        let url = "https://example.com";
        let used = |environment: &[_], dotenv: &[_]| used(url, environment, dotenv).unwrap();
        assert_eq!(used(&[], &[]), None);
        assert_eq!(used(&[], &[("https_proxy", other)]).unwrap(), "other:2");
        assert_eq!(
            used(&[("https_proxy", one)], &[("ALL_PROXY", other)]).unwrap(),
            "one:1"
        );
        let no_proxy = ("NO_PROXY", "a.example,example.com");
        assert_eq!(used(&[("HTTPS_PROXY", one)], &[no_proxy]), None);
        assert_eq!(
            used(&[("no_proxy", "x"), ("HTTPS_PROXY", one)], &[no_proxy]).unwrap(),
            "one:1"
        );
    }

    #[test]
    fn a_loopback_target_has_no_proxy_and_its_variables_are_not_read() {
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
        let bad = [("ALL_PROXY", "http://user:hush@")];
        let error = used("https://example.com", &[], &bad).unwrap_err();
        assert!(
            error.starts_with(".env: ALL_PROXY: its value is not"),
            "{error}"
        );
        assert!(!error.contains("hush"), "{error}");
    }
}
