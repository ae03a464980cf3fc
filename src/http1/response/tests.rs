use super::*;

fn parse_new(bytes: &[u8], method: &Method) -> Result<Parsed, &'static str> {
    parse(bytes, method, &mut HeaderBlock::default())
}

fn parse_final(head: &str) -> Result<ResponseHead, &'static str> {
    match parse_new(head.as_bytes(), &Method::GET)? {
        Parsed::Final(length, response) => {
            assert_eq!(length, head.len());
            Ok(response)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_than_64_connection_options_are_rejected() {
    let head = |options: usize| {
        let options = "x,".repeat(options);
        format!("HTTP/1.1 200 OK\r\nConnection: {options}\r\n\r\n")
    };
    assert!(parse_final(&head(64)).is_ok());
    assert!(parse_final(&head(65)).is_err());
}

#[test]
fn every_prefix_of_a_head_is_incomplete() {
    let head = b"HTTP/1.1 200 OK\r\nX-A:  1 \r\nx-a: 2\r\n\r\nbody";
    let end = head.len() - 4;
    for length in 0..end {
        let parsed = parse_new(&head[..length], &Method::GET);
        assert!(matches!(parsed, Ok(Parsed::NotYet)), "{length} bytes");
    }
    let Ok(Parsed::Final(length, response)) = parse_new(head, &Method::GET) else {
        panic!("not final");
    };
    assert_eq!((length, response.status), (end, StatusCode::OK));
    assert_eq!(
        response.fields,
        HeaderBlock::of(&[("X-A", "1"), ("x-a", "2")])
    );
}

#[test]
fn interim_responses_are_distinguished_from_the_final_one() {
    let both = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let Ok(Parsed::Interim(length)) = parse_new(both, &Method::GET) else {
        panic!("not interim");
    };
    let rest = parse_new(&both[length..], &Method::GET);
    assert!(matches!(rest, Ok(Parsed::Final(19, _))));
}

/// Parses the response `HTTP/{head}` to a request with `method`.
fn response_to(method: &str, head: &str) -> ResponseHead {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    match parse_new(format!("HTTP/{head}\r\n\r\n").as_bytes(), &method) {
        Ok(Parsed::Final(_, response)) => response,
        other => panic!("{head}: {other:?}"),
    }
}

#[test]
fn the_framing_follows_rfc_9112() {
    const FIVE: &str = "Content-Length: 5";
    for (method, head, body_length, lengths) in [
        (
            "GET",
            format!("1.1 200 OK\r\n{FIVE}"),
            BodyLength::Known(5),
            1,
        ),
        ("HEAD", format!("1.1 200 OK\r\n{FIVE}"), BodyLength::None, 1),
        ("GET", format!("1.1 304 x\r\n{FIVE}"), BodyLength::None, 1),
        ("GET", format!("1.1 204 x\r\n{FIVE}"), BodyLength::None, 0),
        ("GET", "1.1 200 OK".into(), BodyLength::UntilClose, 0),
    ] {
        let response = response_to(method, &head);
        assert_eq!(response.body_length, body_length, "{head}");
        let count = response.fields.values(KnownHeader::ContentLength).count();
        assert_eq!(count, lengths, "{head}");
    }
    let chunked = format!("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n{FIVE}");
    let response = response_to("GET", &chunked);
    assert_eq!(response.body_length, BodyLength::Chunked);
    assert_eq!(response.fields.value(KnownHeader::ContentLength), None);
    assert_eq!(response_to("HEAD", &chunked).body_length, BodyLength::None);
}

#[test]
fn a_connection_persists_as_rfc_9112_says() {
    for (head, persists) in [
        ("1.1 200 OK\r\nContent-Length: 5", true),
        ("1.1 200 OK\r\nTransfer-Encoding: chunked", true),
        ("1.1 304 x", true),
        ("1.1 200 OK", false),
        ("1.0 200 OK\r\nContent-Length: 5", false),
        (
            "1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close",
            false,
        ),
    ] {
        assert_eq!(response_to("GET", head).persists, persists, "{head}");
    }
}

#[test]
fn equal_content_lengths_are_merged() {
    let response =
        parse_final("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nA: b\r\ncontent-length: 5\r\n\r\n");
    let lines = [("Content-Length", "5"), ("A", "b")];
    assert_eq!(response.unwrap().fields, HeaderBlock::of(&lines));
    let response = parse_final("HTTP/1.1 200 OK\r\nContent-Length: 010\r\n\r\n").unwrap();
    assert_eq!(
        response.fields,
        HeaderBlock::of(&[("Content-Length", "10")])
    );
}

#[test]
fn ambiguous_and_malformed_heads_are_rejected() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "A: b\r\n c",
        "A\0: b",
        "A: b\0",
        "no colon",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert!(parse_final(&head).is_err(), "{fields:?}");
    }
    for head in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
    ] {
        assert!(
            parse_new(head.as_bytes(), &Method::GET).is_err(),
            "{head:?}"
        );
    }
}
