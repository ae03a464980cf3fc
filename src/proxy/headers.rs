//! Which fields are forwarded. Pure.

use http::HeaderValue;

use crate::http1::headers::{HeaderBlock, KnownHeader};

/// The field that ties the log lines of client, proxy and upstream together.
pub const REQUEST_ID: &str = "x-request-id";
/// How its line begins.
const OWN_ID: &[u8] = b"x-request-id: ";

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
fn is_set_anew(name: KnownHeader) -> bool {
    matches!(
        name,
        KnownHeader::Host
            | KnownHeader::Authorization
            | KnownHeader::ContentLength
            | KnownHeader::Expect
    )
}

/// The fields that the values of Connection name. Content-Length cannot be named away: the message
/// would have no end.
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
pub type Own<'f> = (&'f HeaderValue, &'f HeaderValue, &'f [u8]);

/// What goes to the upstream: the target's `host` and `authorization`, then all of the client's fields
/// in their order, less the hop-by-hop ones and what the proxy sets itself, and `request_id` where
/// none of the client's goes on.
pub fn for_upstream<'f>(
    fields: &'f HeaderBlock,
    (authorization, host, request_id): Own<'f>,
) -> impl Iterator<Item = &'f [u8]> + Clone {
    let named = Named::by(fields);
    let ours: [&[u8]; 5] = [
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
    let theirs = fields.raw_lines(move |known, name| {
        !is_set_anew(known)
            && !is_hop_by_hop(known)
            && !named.contains(name)
            && (known != KnownHeader::XRequestId || has_id)
    });
    let own_id = (!has_id).then(|| own_id(request_id)).into_iter().flatten();
    ours.into_iter().chain(theirs).chain(own_id)
}

/// What goes to the client: the upstream's fields less the hop-by-hop ones, and `request_id` where
/// none of the upstream's goes on.
pub fn for_client<'f>(
    answer: &'f HeaderBlock,
    request_id: &'f [u8],
) -> impl Iterator<Item = &'f [u8]> {
    let named = Named::by(answer);
    let id = REQUEST_ID.as_bytes();
    let has_id = answer.value(KnownHeader::XRequestId).is_some() && !named.contains(id);
    let theirs =
        answer.raw_lines(move |known, name| !is_hop_by_hop(known) && !named.contains(name));
    theirs.chain((!has_id).then(|| own_id(request_id)).into_iter().flatten())
}

/// The field line of the proxy's own request id.
pub fn own_id(request_id: &[u8]) -> [&[u8]; 3] {
    [OWN_ID, request_id, b"\r\n"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let value = HeaderValue::from_static;
        let (ours, host) = (value("Bearer ours"), value("flow.example"));
        let fields = HeaderBlock::of(fields);
        let lines: Vec<_> = for_upstream(&fields, (&ours, &host, b"id-1")).collect();
        pairs(&lines)
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
        let lines: Vec<_> = for_client(&answer, b"ours").collect();
        let names: Vec<_> = pairs(&lines).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Content-Length", "X-Request-Id"]);
        let answer = HeaderBlock::of(&[("Connection", "X-Request-Id"), ("X-Request-Id", "theirs")]);
        let lines: Vec<_> = for_client(&answer, b"ours").collect();
        assert_eq!(lines.concat(), b"x-request-id: ours\r\n");
    }
}
