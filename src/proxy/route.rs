//! Where a request goes: its target, taken apart and put behind the target URL's path. Pure.

use std::ops::Range;

use http::Method;

use crate::config::target::Target;
use crate::http1::error::HttpError;

#[cfg(test)]
mod tests;

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

/// RFC 9112 section 3.2.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    #[default]
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
    // Methods are case-sensitive (RFC 9110 section 9.1), but not for every server.
    let is = |name: &str| method.as_str().eq_ignore_ascii_case(name);
    if is("CONNECT") {
        return Err(HttpError::method_not_allowed(
            "this is a reverse proxy, not a tunnel: use it as the base URL \
             (OPENAI_BASE_URL, ANTHROPIC_BASE_URL) instead of as HTTPS_PROXY",
        ));
    }
    // An upstream that echoes the request would show the token. TRACK is Microsoft's name for it.
    if is("TRACE") || is("TRACK") {
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
