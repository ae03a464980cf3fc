//! Which header fields are forwarded in both directions. Pure.

use std::time::Duration;

use http::HeaderValue;

use super::access::cors::Cors;
use super::api::Api;
use super::route::TargetForm;
use crate::config::target::Target;
use crate::http1::encode::field_lines;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// Ties the log lines of client, proxy and upstream together.
pub const REQUEST_ID: &str = "x-request-id";
/// The id that Anthropic's SDKs show.
pub const ANTHROPIC_ID: &str = "request-id";
/// Tells the SDKs whether to send a request again by themselves.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// Whether a field speaks about one connection only (RFC 9110 section 7.6.1, and those that came
/// before the rule).
fn is_hop_by_hop(name: KnownHeader) -> bool {
    matches!(
        name,
        KnownHeader::Connection
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyAuthenticate
            | KnownHeader::ProxyAuthorization
            | KnownHeader::ProxyConnection
            | KnownHeader::Te
            | KnownHeader::Trailer
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade
    )
}

/// Whether the proxy sets a field itself in what it sends to the upstream.
fn is_set_by_proxy(name: KnownHeader) -> bool {
    matches!(
        name,
        KnownHeader::Host
            | KnownHeader::Authorization
            | KnownHeader::ContentLength
            | KnownHeader::Expect
    )
}

/// Whether a field holds a credential of the client's: its keys for other APIs, of which LiteLLM takes
/// some before ours, and its cookies, which know no ports.
fn is_client_credential(name: KnownHeader) -> bool {
    matches!(
        name,
        KnownHeader::ApiKey
            | KnownHeader::Cookie
            | KnownHeader::OcpApimSubscriptionKey
            | KnownHeader::XApiKey
            | KnownHeader::XGoogApiKey
            | KnownHeader::XLitellmApiKey
    )
}

/// The fields that Connection names. Content-Length cannot be named away: the message would have no
/// end.
#[derive(Clone, Default)]
struct Named<'f>(Vec<&'f [u8]>);

impl<'f> Named<'f> {
    fn by(fields: &'f HeaderBlock) -> Named<'f> {
        let options = fields.connection_options();
        let fields = options.filter(|option| !option.eq_ignore_ascii_case(b"content-length"));
        Named(fields.collect())
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Authorization, Host and request id that the proxy sets.
pub type Own<'f> = (&'f str, &'f HeaderValue, &'f [u8]);

/// What goes to the upstream: `host` and `authorization` of the target, then all of the client's fields in
/// their order, except the hop-by-hop ones, the client's credentials and what the proxy sets itself, and
/// `request_id` where none of the client's goes on.
pub fn for_upstream<'f>(
    fields: &'f HeaderBlock,
    (authorization, host, request_id): Own<'f>,
) -> impl Iterator<Item = &'f [u8]> + Clone {
    let named = Named::by(fields);
    let own: [&[u8]; 5] = [
        b"host: ",
        host.as_bytes(),
        b"\r\nauthorization: ",
        authorization.as_bytes(),
        b"\r\n",
    ];
    let id = REQUEST_ID.as_bytes();
    let has_id = fields
        .value(KnownHeader::XRequestId)
        .is_some_and(|id| !id.is_empty())
        && !named.contains(id);
    let forwarded = fields.raw_lines(move |known, name| {
        !is_set_by_proxy(known)
            && !is_hop_by_hop(known)
            && !is_client_credential(known)
            && !named.contains(name)
            && (known != KnownHeader::XRequestId || has_id)
    });
    let own_id = (!has_id).then(|| own_id(request_id)).into_iter().flatten();
    own.into_iter().chain(forwarded).chain(own_id)
}

/// Whether a field is about the upstream's origin, or would let others into the proxy's: cookies, storage,
/// service workers, other addresses, and which pages may read a response.
fn is_about_origin(known: KnownHeader, name: &[u8]) -> bool {
    const CORS: &[u8] = b"access-control-";
    match known {
        KnownHeader::AltSvc
        | KnownHeader::ClearSiteData
        | KnownHeader::ServiceWorkerAllowed
        | KnownHeader::SetCookie
        | KnownHeader::SetCookie2 => true,
        KnownHeader::Other => {
            let start = name.get(..CORS.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(CORS))
        }
        _ => false,
    }
}

/// What of a request the header fields of its response depend on.
#[derive(Debug, Default)]
pub struct ResponseRules {
    pub api: Api,
    pub form: TargetForm,
    pub cors: Cors,
    /// A browser shows the response as a document.
    pub is_navigation: bool,
}

/// What the header fields for the client differ in from the upstream's.
pub struct ClientHeaders<'r> {
    target: &'r Target,
    request_id: &'r [u8],
    pub rules: &'r ResponseRules,
    replaces_retry_after: bool,
    replaces_location: bool,
    adds_id: bool,
    /// Further lines.
    extra: Vec<u8>,
}

impl<'r> ClientHeaders<'r> {
    /// For the response to a request with `request_id`.
    pub fn new(target: &'r Target, request_id: &'r [u8], rules: &'r ResponseRules) -> Self {
        ClientHeaders {
            target,
            request_id,
            rules,
            replaces_retry_after: false,
            replaces_location: false,
            adds_id: false,
            extra: Vec::new(),
        }
    }

    /// Replaces what the upstream says about when to ask again.
    pub fn set_retry_after(&mut self, rest: Duration) {
        let seconds = rest.as_millis().div_ceil(1000).max(1);
        self.replaces_retry_after = true;
        self.push("retry-after", seconds.to_string().as_bytes());
    }

    /// Passes on what the provider behind the upstream says about it, where the upstream says nothing.
    pub fn take_retry_after_of_provider(&mut self, response: &HeaderBlock) {
        if response.value(KnownHeader::RetryAfter).is_none()
            && let Some(value) = response.find(b"llm_provider-retry-after")
        {
            self.push("retry-after", value);
        }
    }

    /// Tells SDKs not to try again.
    pub fn forbid_retry(&mut self) {
        self.push(SHOULD_RETRY, b"false");
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.extra.extend_from_slice(piece);
        }
    }

    /// The lines that stand for a field of the upstream's that is not passed on as it is.
    fn rewrite(&mut self, response: &HeaderBlock, named: &Named<'_>) {
        if let Some(code) = response.value(KnownHeader::XFlowProxyError) {
            self.push("x-flow-proxy-upstream-error", code);
        }
        if let Some(location) = response.value(KnownHeader::Location) {
            // In absolute form the client knows the upstream's own URLs.
            let is_origin = self.rules.form == TargetForm::Origin;
            if is_origin && let Some(own) = own_location(location, self.target) {
                self.replaces_location = true;
                self.push("location", own);
            }
        }
        let has =
            |known, name: &str| response.value(known).is_some() && !named.contains(name.as_bytes());
        let id = self.request_id;
        self.adds_id = !has(KnownHeader::XRequestId, REQUEST_ID);
        if self.rules.api == Api::Messages && !has(KnownHeader::RequestId, ANTHROPIC_ID) {
            self.push(ANTHROPIC_ID, id);
        }
        if self.rules.is_navigation {
            // The document gets an origin of its own: its scripts do not run, least of all as the proxy's.
            self.push("content-security-policy", b"sandbox");
            self.push("x-content-type-options", b"nosniff");
        }
        let cors = self.rules.cors.fields(Some(response));
        field_lines(&cors).for_each(|piece| self.extra.extend_from_slice(piece));
    }
}

/// What goes to the client: the upstream's fields except the hop-by-hop ones and those about its origin, and
/// what `headers` says.
pub fn for_client<'f>(
    response: &'f HeaderBlock,
    headers: &'f mut ClientHeaders<'_>,
) -> impl Iterator<Item = &'f [u8]> {
    let named = Named::by(response);
    headers.rewrite(response, &named);
    let headers = &*headers;
    let forwarded = response.raw_lines(move |known, name| {
        let is_rewritten = match known {
            KnownHeader::XFlowProxyError => true,
            KnownHeader::Location => headers.replaces_location,
            KnownHeader::RetryAfter | KnownHeader::RetryAfterMs => headers.replaces_retry_after,
            // Browsers go by the first one.
            KnownHeader::XContentTypeOptions => headers.rules.is_navigation,
            _ => is_about_origin(known, name),
        };
        !is_hop_by_hop(known) && !is_rewritten && !named.contains(name)
    });
    let own = headers.adds_id.then(|| own_id(headers.request_id));
    let extra = (!headers.extra.is_empty()).then_some(headers.extra.as_slice());
    forwarded.chain(own.into_iter().flatten()).chain(extra)
}

/// Path and query of a Location that leads to the target: followed as it is, it would lead past the proxy.
fn own_location<'l>(location: &'l [u8], target: &Target) -> Option<&'l [u8]> {
    let text = std::str::from_utf8(location).ok()?;
    let (scheme, rest) = text.split_once("://")?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default_port),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // In either scheme: a front may end TLS and know nothing of it.
    let has_port =
        port == target.port || (port == default_port && [80, 443].contains(&target.port));
    let below = path.strip_prefix(target.base_path.as_str())?;
    let is_below = below.is_empty() || below.starts_with(['/', '?', '#']);
    let is_own = bare.eq_ignore_ascii_case(&target.host) && has_port && is_below;
    // A path that begins with `//` would name another host. For browsers `\` is `/`, and TAB is nothing.
    let is_clear = path.starts_with('/')
        && !path.starts_with("//")
        && !path
            .bytes()
            .any(|byte| byte == b'\\' || byte.is_ascii_control());
    (is_own && is_clear).then_some(path.as_bytes())
}

/// The field line of the proxy's own request id.
pub fn own_id(request_id: &[u8]) -> [&[u8]; 4] {
    [REQUEST_ID.as_bytes(), b": ", request_id, b"\r\n"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let host = HeaderValue::from_static("flow.example");
        let fields = HeaderBlock::of(fields);
        let lines: Vec<_> = for_upstream(&fields, ("Bearer ours", &host, b"id-1")).collect();
        pairs(&lines)
    }

    fn target() -> Target {
        Target::parse("https://flow.example/base").unwrap()
    }

    fn for_client_of(response: &HeaderBlock) -> Vec<u8> {
        let target = target();
        let rules = ResponseRules::default();
        let mut headers = ClientHeaders::new(&target, b"ours", &rules);
        for_client(response, &mut headers)
            .collect::<Vec<_>>()
            .concat()
    }

    /// Name and value of each line.
    fn pairs(lines: &[&[u8]]) -> Vec<(String, String)> {
        let text = String::from_utf8(lines.concat()).unwrap();
        assert!(text.ends_with("\r\n"));
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        text.split_terminator("\r\n").map(pair).collect()
    }

    #[test]
    fn end_to_end_fields_keep_their_order_and_repeats() {
        let fields = [("X-B", "1"), ("x-a", "2"), ("x-b", "3"), ("accept", "*/*")];
        let lines = forwarded(&fields);
        let lines: Vec<_> = lines
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                ("host", "flow.example"),
                ("authorization", "Bearer ours"),
                ("X-B", "1"),
                ("x-a", "2"),
                ("x-b", "3"),
                ("accept", "*/*"),
                ("x-request-id", "id-1"),
            ]
        );
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_stay_here() {
        let fields = [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
            ("upgrade", "h2c"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("authorization", "Bearer theirs"),
            ("host", "localhost"),
            ("x-request-id", "theirs"),
        ];
        let lines = forwarded(&fields);
        let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "authorization", "x-request-id"]);
        assert_eq!(lines[1].1, "Bearer ours");
        assert_eq!(lines[2].1, "theirs");
    }

    #[test]
    fn an_id_reaches_the_upstream_whatever_the_client_did_to_its_own() {
        for fields in [
            &[("Connection", "X-Request-Id"), ("X-Request-Id", "theirs")][..],
            &[("X-Request-Id", "")],
            &[],
        ] {
            let lines = forwarded(fields);
            let ids: Vec<_> = lines
                .iter()
                .filter(|(name, _)| name == REQUEST_ID)
                .collect();
            assert_eq!(ids, [&(REQUEST_ID.to_owned(), "id-1".to_owned())]);
            assert!(!lines.iter().any(|(name, _)| name == "X-Request-Id"));
        }
    }

    #[test]
    fn an_answer_keeps_its_length_and_the_upstreams_request_id() {
        let answer = HeaderBlock::of(&[
            ("Connection", "Content-Length, x-a"),
            ("Content-Length", "5"),
            ("X-A", "1"),
            ("Keep-Alive", "5"),
            ("X-Request-Id", "upstream's"),
        ]);
        let lines = for_client_of(&answer);
        let names: Vec<_> = pairs(&[&lines]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Content-Length", "X-Request-Id"]);
        let answer = HeaderBlock::of(&[("Connection", "X-Request-Id"), ("X-Request-Id", "theirs")]);
        assert_eq!(for_client_of(&answer), b"x-request-id: ours\r\n");
    }
}
