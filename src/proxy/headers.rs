//! Which fields are forwarded. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The field that ties the log lines of client, proxy and upstream together.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a field speaks about one connection only (RFC 9110 section 7.6.1, and those that came
/// before the rule).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
}

/// The fields that Connection names. Content-Length cannot be named away: the message would have
/// no end.
fn named_by_connection<'f>(
    fields: impl Iterator<Item = (&'f HeaderName, &'f HeaderValue)>,
) -> Vec<HeaderName> {
    fields
        .filter(|(name, _)| **name == header::CONNECTION)
        .flat_map(|(_, value)| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .filter(|name| *name != KEEP_ALIVE && *name != header::CONTENT_LENGTH)
        .collect()
}

/// What goes to the upstream: all fields in their order, less the hop-by-hop ones and what the
/// proxy sets itself; `authorization` in the place of the client's, the target's `host`, and
/// `request_id` where the client sent none.
pub fn for_upstream(
    fields: &[(HeaderName, HeaderValue)],
    authorization: &HeaderValue,
    host: &HeaderValue,
    request_id: &HeaderValue,
) -> HeaderMap {
    let named = named_by_connection(fields.iter().map(|(name, value)| (name, value)));
    let mut forwarded = HeaderMap::with_capacity(fields.len() + 3);
    forwarded.insert(header::HOST, host.clone());
    forwarded.insert(header::AUTHORIZATION, authorization.clone());
    for (name, value) in fields {
        let is_ours = *name == header::HOST
            || *name == header::AUTHORIZATION
            || *name == header::CONTENT_LENGTH
            || *name == header::EXPECT;
        if !is_ours && !is_hop_by_hop(name) && !named.contains(name) {
            forwarded.append(name.clone(), value.clone());
        }
    }
    if !forwarded.contains_key(&REQUEST_ID) {
        forwarded.insert(&REQUEST_ID, request_id.clone());
    }
    forwarded
}

/// What goes to the client: the upstream's fields less the hop-by-hop ones, and `request_id` where
/// the upstream set none.
pub fn for_client<'f>(
    answer: &'f HeaderMap,
    request_id: &'f HeaderValue,
) -> impl Iterator<Item = (&'f HeaderName, &'f HeaderValue)> {
    let named = named_by_connection(answer.iter());
    let own_id = if answer.contains_key(&REQUEST_ID) {
        None
    } else {
        Some((&REQUEST_ID, request_id))
    };
    answer
        .iter()
        .filter(move |(name, _)| !is_hop_by_hop(name) && !named.contains(name))
        .chain(own_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    fn forwarded(fields: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
        let value = HeaderValue::from_static;
        for_upstream(
            fields,
            &value("Bearer ours"),
            &value("flow.example"),
            &value("id-1"),
        )
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect()
    }

    #[test]
    fn end_to_end_fields_keep_their_order_and_repeats() {
        let fields = [
            field("x-b", "1"),
            field("x-a", "2"),
            field("x-b", "3"),
            field("accept", "*/*"),
        ];
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
                ("x-b", "1"),
                ("x-b", "3"),
                ("x-a", "2"),
                ("accept", "*/*"),
                ("x-request-id", "id-1"),
            ]
        );
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_stay_here() {
        let fields = [
            field("connection", "close, X-Secret"),
            field("x-secret", "1"),
            field("te", "trailers"),
            field("keep-alive", "5"),
            field("proxy-authorization", "x"),
            field("upgrade", "h2c"),
            field("proxy-connection", "x"),
            field("transfer-encoding", "chunked"),
            field("trailer", "x"),
            field("expect", "100-continue"),
            field("content-length", "5"),
            field("authorization", "Bearer theirs"),
            field("host", "localhost"),
            field("x-request-id", "theirs"),
        ];
        let lines = forwarded(&fields);
        let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "authorization", "x-request-id"]);
        assert_eq!(lines[1].1, "Bearer ours");
        assert_eq!(lines[2].1, "theirs");
    }

    #[test]
    fn an_answer_keeps_its_length_and_the_upstreams_request_id() {
        let mut answer = HeaderMap::new();
        answer.insert(
            header::CONNECTION,
            HeaderValue::from_static("content-length, x-a"),
        );
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        answer.insert("x-a", HeaderValue::from_static("1"));
        answer.insert(&REQUEST_ID, HeaderValue::from_static("upstream's"));
        let id = HeaderValue::from_static("ours");
        let names: Vec<_> = for_client(&answer, &id)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["content-length", "x-request-id"]);
    }
}
