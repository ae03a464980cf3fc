//! Whether a proxy lies on the way to the upstream, and which: what the environment says.

use std::env;

use ureq::Proxy;

use crate::config::target::Target;

/// Whether a proxy lies on the way to the upstream.
#[derive(Debug, Clone)]
pub enum ProxySettings {
    /// None, whatever the environment says.
    Direct,
    /// The one that the environment names for this target, if any.
    FromEnvironment(Target),
}

/// The variables that can name a proxy, as the HTTP client reads them: the first one counts.
const PROXY_VARIABLES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

impl ProxySettings {
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, String> {
        let ProxySettings::FromEnvironment(target) = self else {
            return Ok(None);
        };
        for name in PROXY_VARIABLES {
            // The value is not quoted: it may hold a password.
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

    /// The proxy on the way as `host:port`, if there is one.
    ///
    /// # Errors
    /// The environment names one that makes no sense.
    pub fn proxy_name(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy()?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
    }
}
