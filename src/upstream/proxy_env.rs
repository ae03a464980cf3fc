//! Which proxy is used for the target, if any, according to the environment.

use std::env;

use ureq::Proxy;

use crate::config::target::Target;

/// Where the choice of a proxy comes from.
#[derive(Debug, Clone)]
pub enum ProxySettings {
    /// No proxy, whatever the environment says.
    Direct,
    /// The proxy that the environment names for this target, if any.
    FromEnvironment(Target),
}

/// The variables that can name a proxy, in ureq's order: the first one that is set counts.
const PROXY_VARIABLES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

impl ProxySettings {
    /// Returns the proxy for the target, if there is one.
    ///
    /// # Errors
    /// One line for the user: a variable names SOCKS version 4 or is not the URL of a proxy.
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, String> {
        let ProxySettings::FromEnvironment(target) = self else {
            return Ok(None);
        };
        for name in PROXY_VARIABLES {
            // The messages do not quote the value, which may have a password.
            match env::var(name) {
                Ok(value) if value.to_ascii_lowercase().starts_with("socks4") => {
                    return Err(format!(
                        "{name}: SOCKS version 4 is not supported, use socks5://"
                    ));
                }
                Ok(value) if !value.is_empty() && Proxy::new(&value).is_err() => {
                    return Err(format!(
                        "{name}: its value is not a proxy's URL (http://host:port, socks5://host:port)"
                    ));
                }
                _ => {}
            }
        }
        let uri = target.to_string().parse::<http::Uri>().unwrap_or_default();
        Ok(Proxy::try_from_env().filter(|proxy| !proxy.is_no_proxy(&uri)))
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
