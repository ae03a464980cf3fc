//! Which API a path belongs to.

/// Which API a path belongs to, as far as their errors differ.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Anthropic's messages.
    Messages,
    /// OpenAI's responses.
    Responses,
    #[default]
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
