//! What browsers say of requests that have no Origin: images, navigations, the forms of web pages. Pure.
//!
//! W3C, Fetch Metadata Request Headers. Browsers send them to `https://` URLs and to local ones.

use std::net::{IpAddr, SocketAddr};

use http::Method;

use super::origin::{AllowedOrigins, way_in};
use super::shown::shown;
use crate::http1::error::HttpError;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// The page that shows itself to users, whom a link may lead to it.
const PAGE: &[u8] = b"/-/";

/// Checks a request for `path` that has no Origin.
///
/// # Errors
/// 403: a web page asks for it.
pub fn check(
    method: &Method,
    fields: &HeaderBlock,
    path: &[u8],
    origins: &AllowedOrigins,
) -> Result<(), HttpError> {
    if path == PAGE && may_be_navigation(fields) {
        return Ok(());
    }
    if let Some(purpose) = fields.value(KnownHeader::SecPurpose) {
        // Browsers load ahead for a page as if the user had typed the address.
        return Err(rejected("Sec-Purpose", purpose));
    }
    let mut sites = fields.values(KnownHeader::SecFetchSite).peekable();
    if sites.peek().is_none() {
        if path.starts_with(PAGE) && is_from_own_page(fields) {
            return Ok(());
        }
        return check_without_site(method, fields, origins);
    }
    // `none`: the user typed the address. Values that are not known yet come from a page, too.
    match sites.find(|site| *site != b"none" && *site != b"same-origin") {
        None => Ok(()),
        Some(site) => Err(rejected("Sec-Fetch-Site", site)),
    }
}

/// The response to what a page asks for other than by its scripts.
fn rejected(name: &str, value: &[u8]) -> HttpError {
    HttpError::forbidden(format!(
        "links, images, frames and forms of web pages are not let in ({name} '{}'): they would spend \
         the credentials of the page's visitors. Type the address into the browser, or call by fetch() \
         from a page whose origin is in --allow-origin",
        shown(value)
    ))
}

/// Checks what stands for the site where none is named.
fn check_without_site(
    method: &Method,
    fields: &HeaderBlock,
    origins: &AllowedOrigins,
) -> Result<(), HttpError> {
    let is_silent = fields.value(KnownHeader::Referer).is_none();
    if is_silent && [Method::GET, Method::HEAD].contains(method) && is_of_browser(fields) {
        return Err(HttpError::forbidden(
            "at this address browsers do not tell whether a web page asks, and it would spend the \
             credentials of its visitors: open http://localhost:PORT or http://127.0.0.1:PORT instead",
        ));
    }
    let pages = fields.values(KnownHeader::Referer).map(origin_of);
    let mut foreign = pages.filter(|origin| !origins.allow(origin));
    match foreign.next() {
        None => Ok(()),
        Some(origin) => Err(HttpError::forbidden(format!(
            "requests from web pages are not let in (Referer '{}'): they would spend the credentials \
             of the page's visitors. {}",
            shown(origin),
            way_in(origin)
        ))),
    }
}

/// Whether the page itself asks, at an address that is no name: names can be bound to any address.
fn is_from_own_page(fields: &HeaderBlock) -> bool {
    let host = fields.value(KnownHeader::Host).unwrap_or_default();
    let is_address = std::str::from_utf8(host)
        .is_ok_and(|host| host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok());
    let mut pages = fields.values(KnownHeader::Referer).map(origin_of);
    let is_own = pages
        .next()
        .is_some_and(|origin| origin.strip_prefix(b"http://") == Some(host));
    is_address && is_own && pages.next().is_none()
}

/// Whether a browser sent it. All browsers send these fields; pages cannot change User-Agent without a
/// preflight. Electron is an application's: Chromium, but its main process has no pages.
fn is_of_browser(fields: &HeaderBlock) -> bool {
    let agent = fields.value(KnownHeader::UserAgent).unwrap_or_default();
    agent.starts_with(b"Mozilla/")
        && memchr::memmem::find(agent, b" Electron/").is_none()
        && [&b"accept-language"[..], b"upgrade-insecure-requests"]
            .iter()
            .any(|name| fields.find(name).is_some())
}

/// Scheme, host and port of a URL.
fn origin_of(url: &[u8]) -> &[u8] {
    let Some(scheme) = memchr::memmem::find(url, b"://") else {
        return url;
    };
    let authority = scheme + b"://".len();
    match memchr::memchr3(b'/', b'?', b'#', &url[authority..]) {
        Some(length) => &url[..authority + length],
        None => url,
    }
}

/// Rejects what asks for the script of a service worker: it would act for all pages of the proxy's
/// origin.
///
/// # Errors
/// 403.
pub fn check_no_service_worker(fields: &HeaderBlock) -> Result<(), HttpError> {
    // Service Workers, appendix B: browsers ask with `Service-Worker: script`.
    let is_worker = fields.value(KnownHeader::ServiceWorker).is_some()
        || fields
            .values(KnownHeader::SecFetchDest)
            .any(|dest| dest.eq_ignore_ascii_case(b"serviceworker"));
    if !is_worker {
        return Ok(());
    }
    Err(HttpError::forbidden(
        "the script of a service worker is not served: it would act for all pages of this address",
    ))
}

/// Whether a browser asks for a document to show.
pub fn is_navigation(fields: &HeaderBlock) -> bool {
    let mut modes = fields.values(KnownHeader::SecFetchMode);
    modes.any(|mode| mode.eq_ignore_ascii_case(b"navigate"))
}

fn may_be_navigation(fields: &HeaderBlock) -> bool {
    is_navigation(fields) || fields.value(KnownHeader::SecFetchMode).is_none()
}
