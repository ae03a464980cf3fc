//! Which fields are forwarded. Pure.

use http::{HeaderName, HeaderValue, header};

use super::answer::Fields;

/// The field that ties the log lines of client, proxy and upstream together.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The fields that speak about one connection only (RFC 9110 section 7.6.1, and those that came
/// before the rule), in lower case.
const HOP_BY_HOP: [&[u8]; 9] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP
        .iter()
        .any(|hop_by_hop| name.eq_ignore_ascii_case(hop_by_hop))
}

/// The fields that the values of Connection name. Content-Length cannot be named away: the message
/// would have no end.
#[derive(Default)]
struct Named<'f>(Vec<&'f [u8]>);

impl<'f> Named<'f> {
    fn by(values: impl Iterator<Item = &'f [u8]>) -> Named<'f> {
        let options = values
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.eq_ignore_ascii_case(b"content-length"));
        Named(options.collect())
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// What goes to the upstream: all fields in their order, less the hop-by-hop ones and what the
/// proxy sets itself; `authorization` in the place of the client's, the target's `host`, and
/// `request_id` where the client sent none.
pub fn for_upstream<'f>(
    fields: &'f [(HeaderName, HeaderValue)],
    authorization: &'f HeaderValue,
    host: &'f HeaderValue,
    request_id: &'f HeaderValue,
) -> impl Iterator<Item = (&'f [u8], &'f [u8])> {
    let connection = fields
        .iter()
        .filter(|(name, _)| *name == header::CONNECTION);
    let named = Named::by(connection.map(|(_, value)| value.as_bytes()));
    let ours = [
        (&header::HOST, host),
        (&header::AUTHORIZATION, authorization),
    ];
    let has_id = fields.iter().any(|(name, _)| *name == REQUEST_ID);
    let own_id = (!has_id).then_some((&REQUEST_ID, request_id));
    let theirs = fields.iter().filter(move |(name, _)| {
        let is_ours = *name == header::HOST
            || *name == header::AUTHORIZATION
            || *name == header::CONTENT_LENGTH
            || *name == header::EXPECT;
        let is_named = || named.contains(name.as_str().as_bytes());
        !is_ours && !is_hop_by_hop(name.as_str().as_bytes()) && !is_named()
    });
    ours.into_iter()
        .chain(theirs.map(|(name, value)| (name, value)))
        .chain(own_id)
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// What goes to the client: the upstream's fields less the hop-by-hop ones, and `request_id` where
/// the upstream set none.
pub fn for_client<'f>(
    answer: &'f Fields,
    request_id: &'f HeaderValue,
) -> impl Iterator<Item = (&'f [u8], &'f [u8])> {
    let named = Named::by(answer.values("connection"));
    let id = REQUEST_ID.as_str();
    let own_id = answer
        .value(id)
        .is_none()
        .then_some((id.as_bytes(), request_id.as_bytes()));
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
        .map(|(name, value)| (text(name), text(value)))
        .collect()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
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
        let answer = Fields::from_iter([
            ("Connection", "Content-Length, x-a"),
            ("Content-Length", "5"),
            ("X-A", "1"),
            ("Keep-Alive", "5"),
            ("X-Request-Id", "upstream's"),
        ]);
        let id = HeaderValue::from_static("ours");
        let names: Vec<_> = for_client(&answer, &id)
            .map(|(name, _)| text(name))
            .collect();
        assert_eq!(names, ["Content-Length", "X-Request-Id"]);
    }
}
