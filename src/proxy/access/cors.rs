//! Which page may read a response: CORS (WHATWG Fetch section 3.3). Pure.

use http::{HeaderName, HeaderValue, Method, header};

use crate::http1::headers::HeaderBlock;
use crate::http1::request::RequestHead;

/// The response header fields that a page may read beside those that it always may. Never `*`.
const EXPOSED: &str = "x-request-id, request-id, x-flow-proxy-error, retry-after, x-should-retry";
/// What the names of further ones begin with.
const EXPOSED_PREFIXES: [&[u8]; 2] = [b"x-litellm-", b"x-ratelimit-"];
/// How long a browser may keep the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// The origin whose page may read the response to a request, if there is one.
#[derive(Debug, Default)]
pub struct Cors(Option<HeaderValue>);

impl Cors {
    /// For an origin that may call.
    pub fn of(origin: &[u8]) -> Cors {
        Cors(HeaderValue::from_bytes(origin).ok())
    }

    /// What a response says; `response` are the header fields that the upstream gave it.
    pub fn fields(&self, response: Option<&HeaderBlock>) -> Vec<(HeaderName, HeaderValue)> {
        let Cors(Some(origin)) = self else {
            return Vec::new();
        };
        let mut exposed = EXPOSED.as_bytes().to_vec();
        let names = response.into_iter().flat_map(HeaderBlock::iter);
        for (name, _) in names.filter(|(name, _)| is_exposed(name)) {
            exposed.extend_from_slice(b", ");
            exposed.extend_from_slice(name);
        }
        let mut fields = allowing(origin);
        if let Ok(exposed) = HeaderValue::from_bytes(&exposed) {
            fields.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed));
        }
        fields
    }

    /// The response to a preflight; `None`: the request is none, or its origin may not call.
    pub fn preflight(&self, head: &RequestHead) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let origin = self.0.as_ref()?;
        if head.method != Method::OPTIONS {
            return None;
        }
        let method = head.fields.find(b"access-control-request-method")?;
        let headers = head.fields.find(b"access-control-request-headers");
        let mut fields = allowing(origin);
        for (name, asked) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, Some(method)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
        ] {
            let is_visible = |value: &&[u8]| value.iter().all(|byte| (b' '..=b'~').contains(byte));
            let value = asked.filter(is_visible).map(HeaderValue::from_bytes);
            fields.extend(value.and_then(Result::ok).map(|value| (name, value)));
        }
        fields.push((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        // WICG, Private Network Access: asked where the page's address is less local than this one.
        if head.fields.find(b"access-control-request-private-network") == Some(b"true") {
            fields.push((ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true")));
        }
        Some(fields)
    }
}

fn allowing(origin: &HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    vec![
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::VARY, HeaderValue::from_static("Origin")),
    ]
}

fn is_exposed(name: &[u8]) -> bool {
    EXPOSED_PREFIXES.iter().any(|prefix| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}
