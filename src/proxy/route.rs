//! Where a request goes: its target, taken apart and put behind the target URL's path. Pure.

use std::ops::Range;

use http::Method;

use crate::config::target::Target;
use crate::http1::error::HttpError;

/// A part of a request target, as a range of it, or text that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSlice {
    /// These bytes of the target.
    In(Range<usize>),
    Other(Vec<u8>),
}

impl TargetSlice {
    /// The bytes; `target` is the request target that this is a part of.
    pub fn of<'t>(&'t self, target: &'t [u8]) -> &'t [u8] {
        match self {
            TargetSlice::In(range) => &target[range.clone()],
            TargetSlice::Other(bytes) => bytes,
        }
    }

    /// The part before `end`; all of it without one.
    fn until(&self, end: Option<usize>) -> TargetSlice {
        match (self, end) {
            (_, None) => self.clone(),
            (TargetSlice::In(range), Some(end)) => TargetSlice::In(range.start..range.start + end),
            (TargetSlice::Other(bytes), Some(end)) => TargetSlice::Other(bytes[..end].to_vec()),
        }
    }
}

/// What one pass through path and query finds.
struct Marks {
    has_fragment: bool,
    query: Option<usize>,
    /// Nothing in the path can be a dot.
    is_plain: bool,
    /// It has characters that no URL may have (RFC 3986 section 2).
    needs_encoding: bool,
}

impl Marks {
    fn of(path_and_query: &[u8]) -> Marks {
        let mut marks = Marks {
            has_fragment: false,
            query: None,
            is_plain: true,
            needs_encoding: false,
        };
        for (at, byte) in path_and_query.iter().enumerate() {
            match byte {
                b'?' => marks.query = marks.query.or(Some(at)),
                b'#' => marks.has_fragment = true,
                b'"' | b'<' | b'>' | b'`' => marks.needs_encoding = true,
                b'.' | b'%' if marks.query.is_none() => marks.is_plain = false,
                _ => {}
            }
        }
        marks
    }
}

/// A request target that can be forwarded, or answered here.
#[derive(Debug)]
pub struct Route {
    /// Path and query as the client sent them, scheme and host of an absolute form left out.
    path_and_query: TargetSlice,
    /// Without the query.
    pub path: TargetSlice,
    pub form: TargetForm,
    needs_encoding: bool,
}

/// Which API a path belongs to, as far as their errors differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Anthropic's messages.
    Messages,
    /// OpenAI's responses.
    Responses,
    Other,
}

impl Api {
    /// Reads the API from a request's path, with or without the target's `base_path` before it. A base URL
    /// that was given with one slash or one `/v1` too many is read as it was meant.
    pub fn of(path: &[u8], base_path: &str) -> Api {
        let rest = path.strip_prefix(base_path.as_bytes());
        let mut path = rest.filter(|rest| rest.starts_with(b"/")).unwrap_or(path);
        while path.starts_with(b"//") {
            path = &path[1..];
        }
        while path.starts_with(b"/v1/v1/") {
            path = &path[b"/v1".len()..];
        }
        let is_below = |api: &[u8]| matches!(path.strip_prefix(api), Some([] | [b'/' | b'?', ..]));
        if is_below(b"/v1/messages") {
            Api::Messages
        } else if is_below(b"/v1/responses") {
            Api::Responses
        } else {
            Api::Other
        }
    }
}

/// What is wrong with the base URL of a client that asks for `path`, if that shows: it should read so.
pub fn base_url_hint(path: &[u8]) -> Option<&'static str> {
    if path.starts_with(b"//") {
        Some("the path begins with '//': the base URL must not end with a slash")
    } else if path.starts_with(b"/v1/v1/") {
        Some("the path begins with '/v1/v1/': the base URL must not end with /v1 for this client")
    } else {
        None
    }
}

/// RFC 9112 section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    Origin,
    /// The target's host stands in it, which stands in for the check of Host.
    Absolute,
}

impl Route {
    /// Takes a request target apart.
    ///
    /// # Errors
    /// What cannot be forwarded: CONNECT, other hosts, `*`, dot segments.
    pub fn of(method: &Method, request_target: &[u8], target: &Target) -> Result<Route, HttpError> {
        check_method(method)?;
        let (path_and_query, form) = if request_target.starts_with(b"/") {
            (TargetSlice::In(0..request_target.len()), TargetForm::Origin)
        } else {
            (
                from_absolute_form(request_target, target)?,
                TargetForm::Absolute,
            )
        };
        let Marks {
            has_fragment,
            query,
            is_plain,
            needs_encoding,
        } = Marks::of(path_and_query.of(request_target));
        if has_fragment {
            return Err(bad("a request target has no fragment ('#')"));
        }
        let path = path_and_query.until(query);
        if !is_plain && has_dot_segment(path.of(request_target)) {
            return Err(bad(
                "the path has dot segments ('.' or '..'): send the path that is meant",
            ));
        }
        Ok(Route {
            path_and_query,
            path,
            form,
            needs_encoding,
        })
    }

    /// What is asked of the upstream: the target's path once, then the request's path and query.
    pub fn upstream_path(self, request_target: &[u8], target: &Target) -> TargetSlice {
        let base = target.base_path.as_bytes();
        let asked = self.path_and_query.of(request_target);
        let rest = asked.strip_prefix(base);
        let has_base = rest.is_some_and(|rest| rest.is_empty() || b"/?".contains(&rest[0]));
        let base = if has_base { b"" } else { base };
        if self.needs_encoding {
            TargetSlice::Other([base, &encoded(asked)].concat())
        } else if base.is_empty() {
            self.path_and_query
        } else {
            TargetSlice::Other([base, asked].concat())
        }
    }
}

/// Percent-encodes what no URL may have (RFC 3986 section 2.1), and leaves all else as it came.
fn encoded(path_and_query: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(path_and_query.len() + 16);
    for &byte in path_and_query {
        match byte {
            b'"' => encoded.extend_from_slice(b"%22"),
            b'<' => encoded.extend_from_slice(b"%3C"),
            b'>' => encoded.extend_from_slice(b"%3E"),
            b'`' => encoded.extend_from_slice(b"%60"),
            byte => encoded.push(byte),
        }
    }
    encoded
}

fn check_method(method: &Method) -> Result<(), HttpError> {
    if method == Method::CONNECT {
        return Err(HttpError::method_not_allowed(
            "this is a reverse proxy, not a tunnel: use it as the base URL \
             (OPENAI_BASE_URL, ANTHROPIC_BASE_URL) instead of as HTTPS_PROXY",
        ));
    }
    // An upstream that echoes the request would show the token. TRACK is Microsoft's name for it.
    if method == Method::TRACE || method.as_str() == "TRACK" {
        return Err(HttpError::method_not_allowed(
            "TRACE is not forwarded: its response would show the token",
        ));
    }
    Ok(())
}

/// The path of a request target that may be none: what the log shows of it, and what tells whose form
/// an error is to have. Query, fragment and authority are left out, since they can hold secrets. Never
/// empty.
pub fn path_of(request_target: &[u8]) -> TargetSlice {
    let end = memchr::memchr2(b'?', b'#', request_target);
    let end = end.unwrap_or(request_target.len());
    let before_query = &request_target[..end];
    if request_target.starts_with(b"/") {
        return TargetSlice::In(0..end);
    }
    let Some(scheme) = memchr::memmem::find(before_query, b"://") else {
        // The host and port of CONNECT, `*`, or nonsense.
        let start = memchr::memrchr(b'@', before_query).map_or(0, |at| at + 1);
        return if start < end {
            TargetSlice::In(start..end)
        } else {
            TargetSlice::Other(b"-".into())
        };
    };
    let authority = scheme + b"://".len();
    match memchr::memchr(b'/', &before_query[authority..]) {
        Some(length) => TargetSlice::In(authority + length..end),
        None => TargetSlice::Other(b"/".into()),
    }
}

fn bad(what: &'static str) -> HttpError {
    HttpError::bad_request(what)
}

/// The path and query of `http://host[:port]/path?query`, if the host is the target's.
fn from_absolute_form(request_target: &[u8], target: &Target) -> Result<TargetSlice, HttpError> {
    let text = std::str::from_utf8(request_target).unwrap_or_default();
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let start = text.get(..scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme)
            .then(|| &text[scheme.len()..])
    });
    let Some(rest) = rest else {
        return Err(bad(
            "the request target is neither a path nor an http:// URL",
        ));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !names_target(authority, target) {
        return Err(HttpError::forbidden(format!(
            "this proxy forwards to {} only",
            target.authority
        )));
    }
    Ok(match path.as_bytes().first() {
        // The path is the end of the target.
        Some(b'/') => TargetSlice::In(request_target.len() - path.len()..request_target.len()),
        _ => TargetSlice::Other(format!("/{path}").into()),
    })
}

/// Whether `authority` is the target's host, with the target's port, a scheme's default, or none.
fn names_target(authority: &str, target: &Target) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port_fits = match port {
        None | Some("" | "80" | "443") => true,
        Some(port) => port.parse() == Ok(target.port),
    };
    port_fits && bare.eq_ignore_ascii_case(&target.host)
}

/// Whether a server that decodes the path could climb out of the base path: a segment of one or two
/// dots, in whatever encoding, between whatever some server takes for a separator.
fn has_dot_segment(path: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut index = 0;
    while index < path.len() {
        let byte = match path[index..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                index += 2;
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_default() as u8;
                digit(high) << 4 | digit(low)
            }
            [byte, ..] => byte,
            [] => break,
        };
        decoded.push(byte);
        index += 1;
    }
    decoded
        .split(|&byte| byte == b'/' || byte == b'\\')
        .any(|segment| {
            // Some servers cut parameters off before they look at a segment.
            let name = segment
                .split(|&byte| byte == b';')
                .next()
                .unwrap_or_default();
            name == b"." || name == b".."
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::parse("https://flow.example/flow-llm-proxy").unwrap()
    }

    fn route(request_target: &str) -> Result<Route, HttpError> {
        Route::of(&Method::GET, request_target.as_bytes(), &target())
    }

    fn upstream_path(request_target: &str) -> String {
        let route = route(request_target).unwrap();
        let path = route.upstream_path(request_target.as_bytes(), &target());
        String::from_utf8(path.of(request_target.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn the_path_tells_the_api_also_behind_a_base_url_that_is_too_long() {
        for (path, api) in [
            ("/v1/messages", Api::Messages),
            ("/v1/messages?beta=true", Api::Messages),
            ("/v1/messages/count_tokens", Api::Messages),
            ("/base/v1/messages", Api::Messages),
            ("//v1/messages", Api::Messages),
            ("/v1/v1/messages", Api::Messages),
            ("/v1/responses", Api::Responses),
            ("/v1/responses/resp_1/cancel", Api::Responses),
            ("/base//v1/v1/responses", Api::Responses),
            ("/v1/messagesx", Api::Other),
            ("/v1/chat/completions", Api::Other),
            ("/", Api::Other),
            ("-", Api::Other),
            ("/basev1/messages", Api::Other),
        ] {
            assert_eq!(Api::of(path.as_bytes(), "/base"), api, "{path}");
        }
    }

    #[test]
    fn the_base_path_is_put_before_the_path_once() {
        for (asked, expected) in [
            ("/v1/models?x=1", "/flow-llm-proxy/v1/models?x=1"),
            ("/flow-llm-proxy/v1/models", "/flow-llm-proxy/v1/models"),
            ("/flow-llm-proxy", "/flow-llm-proxy"),
            ("/flow-llm-proxy?x", "/flow-llm-proxy?x"),
            ("/flow-llm-proxyx", "/flow-llm-proxy/flow-llm-proxyx"),
            ("/", "/flow-llm-proxy/"),
            ("/a%20b//c;d?e=/../f", "/flow-llm-proxy/a%20b//c;d?e=/../f"),
            (
                "/v1?f={\"a\":<`1`>}",
                "/flow-llm-proxy/v1?f={%22a%22:%3C%601%60%3E}",
            ),
            ("/flow-llm-proxy/\"", "/flow-llm-proxy/%22"),
            ("/v1?f={a}", "/flow-llm-proxy/v1?f={a}"),
            (
                "http://flow.example/v1/models?x",
                "/flow-llm-proxy/v1/models?x",
            ),
            (
                "HTTP://FLOW.example:80/flow-llm-proxy/v1",
                "/flow-llm-proxy/v1",
            ),
            ("https://flow.example:443", "/flow-llm-proxy/"),
            ("http://flow.example?x=1", "/flow-llm-proxy/?x=1"),
        ] {
            assert_eq!(upstream_path(asked), expected, "{asked}");
        }
    }

    #[test]
    fn a_target_without_a_path_forwards_paths_as_they_are() {
        let target = Target::parse("https://flow.example").unwrap();
        let route = Route::of(&Method::GET, b"/v1?x", &target).unwrap();
        assert_eq!(
            route.upstream_path(b"/v1?x", &target),
            TargetSlice::In(0..5)
        );
    }

    #[test]
    fn dot_segments_are_rejected_however_they_are_written() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2E/b",
            "/.%2e/b",
            "/a%2f..%2fb",
            "/a/..%5cb",
            "/a\\..\\b",
            "/..;x/b",
            "/flow-llm-proxy/../admin",
            "/a/%2e",
            "http://flow.example/../x",
        ] {
            assert_eq!(route(path).unwrap_err().code, "bad_request", "{path}");
        }
        for path in [
            "/...",
            "/a..b",
            "/.well-known",
            "/a.",
            "/%2e%2e%2e",
            "/a?b=../c",
            "/%",
            "/%2",
        ] {
            assert!(route(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn the_path_that_is_shown_has_neither_query_nor_authority() {
        for (asked, shown) in [
            ("/v1/models?key=secret", "/v1/models"),
            ("/a://b/c", "/a://b/c"),
            ("http://user:secret@evil/v1/messages?x=/y", "/v1/messages"),
            ("ftp://user:secret@evil", "/"),
            ("http://evil?secret=/x", "/"),
            ("evil.example:443", "evil.example:443"),
            ("user:secret@evil:443", "evil:443"),
            ("*", "*"),
            ("?x", "-"),
            ("/x#secret", "/x"),
        ] {
            let piece = path_of(asked.as_bytes());
            let bytes = piece.of(asked.as_bytes());
            assert_eq!(bytes, shown.as_bytes(), "{asked}");
        }
    }

    #[test]
    fn other_hosts_and_other_forms_are_rejected() {
        for (asked, code) in [
            ("http://evil.example/v1", "forbidden"),
            ("http://flow.example.evil.example/v1", "forbidden"),
            ("http://flow.example:8443/v1", "forbidden"),
            ("http://user@flow.example/v1", "forbidden"),
            ("http:///v1", "forbidden"),
            ("ftp://flow.example/v1", "bad_request"),
            ("*", "bad_request"),
            ("v1/models", "bad_request"),
            ("/v1#x", "bad_request"),
        ] {
            assert_eq!(route(asked).unwrap_err().code, code, "{asked}");
        }
        let connect = Route::of(&Method::CONNECT, b"flow.example:443", &target());
        assert_eq!(connect.unwrap_err().code, "method_not_allowed");
    }
}
