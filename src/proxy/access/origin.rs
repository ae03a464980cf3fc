//! Whose pages may call: those of this machine and of applications, and those that the user names. Pure.

use std::net::Ipv4Addr;

use super::shown::shown;
use crate::config::origin::Origin;
use crate::http1::error::HttpError;

/// The schemes of pages that no web site can have: editors and desktop applications.
const APPLICATION_SCHEMES: [&str; 7] = [
    "vscode-webview",
    "vscode-file",
    "app",
    "tauri",
    "capacitor",
    "ionic",
    "file",
];

/// Decides by Origin.
#[derive(Debug, Clone)]
pub struct AllowedOrigins(Vec<String>);

impl AllowedOrigins {
    /// With further origins, as browsers write them.
    pub fn new(allowed: &[String]) -> AllowedOrigins {
        AllowedOrigins(allowed.to_vec())
    }

    /// Checks the Origin of a request.
    ///
    /// # Errors
    /// 403: pages of this origin may not call.
    pub fn check(&self, origin: &[u8]) -> Result<(), HttpError> {
        if self.allow(origin) {
            return Ok(());
        }
        let way_in = way_in(origin);
        let origin = shown(origin);
        Err(HttpError::forbidden(format!(
            "requests from web pages are not let in (Origin '{origin}'): they would spend the \
             credentials of the page's visitors. {way_in}"
        )))
    }

    /// Whether pages of this origin may call.
    pub fn allow(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        is_local(origin)
            || is_of_application(origin)
            || self.0.iter().any(|allowed| allowed == origin)
    }
}

/// What lets pages of this origin in. An origin that the option does not take is not named.
pub fn way_in(origin: &[u8]) -> String {
    let origin = std::str::from_utf8(origin).ok();
    match origin.filter(|origin| Origin::parse(origin).is_some()) {
        Some(origin) => {
            format!("If the page is yours, start the proxy with --allow-origin {origin}")
        }
        None => {
            "Only pages with an origin of their own can be let in, by --allow-origin".to_owned()
        }
    }
}

/// Whether it is a page of a server on this machine. Nothing but the exact form that browsers write
/// counts.
fn is_local(origin: &str) -> bool {
    let Some(Origin { scheme, host }) = Origin::parse(origin) else {
        return false;
    };
    let is_loopback = || {
        let address = host.parse::<Ipv4Addr>();
        host == "[::1]" || address.is_ok_and(|address| address.is_loopback())
    };
    ["http", "https"].contains(&scheme)
        && (host == "localhost" || host.ends_with(".localhost") || is_loopback())
}

fn is_of_application(origin: &str) -> bool {
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    origin.split_once("://").is_some_and(|(scheme, host)| {
        APPLICATION_SCHEMES.contains(&scheme) && host.bytes().all(is_host_byte)
    })
}
