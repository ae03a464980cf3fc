//! The body of an error is looked at before it goes on, and goes on whole, unchanged and in time,
//! however it comes (contract section 5).

use std::time::{Duration, Instant};

use crate::support::{
    Answer, Ended, FakeFlow, Framing, OK, ProxyProcess, RawClient, RawUpstream, SOON, ask_for,
    chunk, chunked, get, packed, patterned_bytes, start_proxy,
};

const EXPIRED: &str =
    r#"{"error":{"message":"Authentication Error - Expired Key. x","type":"expired_key"}}"#;
/// The head waits 1 s; the rest is for a busy machine.
const LOOK_LIMIT: Duration = Duration::from_millis(2500);

fn head(status: u16, framing: &str) -> String {
    format!("HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{framing}\r\n\r\n")
}

fn with_length(status: u16, body: &[u8]) -> Vec<u8> {
    let head = head(status, &format!("Content-Length: {}", body.len()));
    [head.as_bytes(), body].concat()
}

/// Asks an upstream that answers every request with these bytes; returns what the client gets.
fn assert_goes_on(status: u16, answer: Vec<u8>, body: &[u8]) {
    let upstream = RawUpstream::always(answer);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..2 {
        let response = client.request("POST", "/v1/chat/completions", &[], b"{}");
        assert_eq!((response.status, response.ended), (status, Ended::Complete));
        assert!(response.body == body, "{:?}", response.text());
    }
    assert_eq!(upstream.connections(), 1, "the connection is used again");
}

#[test]
fn errors_of_every_kind_go_on_whole_and_unchanged() {
    let html = "<html><body>502 by a front</body></html>".as_bytes();
    let bodies: [&[u8]; 6] = [
        EXPIRED.as_bytes(),
        html,
        b"",
        b"{\"error\":",
        b"[1,2]",
        b"\xff\xfe\x00",
    ];
    for status in [400, 401, 402, 403, 404, 422, 429] {
        for body in bodies {
            assert_goes_on(status, with_length(status, body), body);
        }
    }
}

#[test]
fn a_large_error_goes_on_whole() {
    for length in [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 40_000, 300_000] {
        let body = patterned_bytes(length);
        assert_goes_on(400, with_length(400, &body), &body);
        let head = head(400, "Transfer-Encoding: chunked");
        let answer = [head.as_bytes(), &chunked(&body, 1000)].concat();
        assert_goes_on(400, answer, &body);
    }
}

#[test]
fn an_error_that_comes_a_byte_at_a_time_is_judged_whole() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() != "client-1" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            connection.send(head(400, "Transfer-Encoding: chunked"));
            for byte in EXPIRED.chars() {
                connection.send(chunk(&byte.to_string()));
            }
            connection.send("0\r\n\r\n");
        }
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "m").status, 200);
    proxy.wait_for_log("Configuration 'primary-1' marked as failed");
}

#[test]
fn an_error_whose_body_comes_300_ms_after_its_head_is_judged() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() != "client-1" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            let answer = with_length(400, EXPIRED.as_bytes());
            let (head, body) = answer.split_at(answer.len() - EXPIRED.len());
            connection.send(head);
            std::thread::sleep(Duration::from_millis(300)); // the upstream's own pace
            connection.send(body);
        }
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "m").status, 200);
    proxy.wait_for_log("Configuration 'primary-1' marked as failed");
}

#[test]
fn an_error_that_never_ends_goes_on_after_a_second_and_as_it_comes() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/x", &[], b"{}");
    commands.send(head(400, "Transfer-Encoding: chunked") + &chunk("begin"));
    let asked = Instant::now();
    assert_eq!(client.read_head().status, 400);
    let waited = asked.elapsed();
    assert!(
        waited > Duration::from_millis(500) && waited < LOOK_LIMIT,
        "{waited:?}"
    );
    client.read_body_until("the beginning", |body| body == b"begin");
    commands.send(chunk("more"));
    client.read_body_until("the rest, as it comes", |body| body == b"beginmore");
    commands.send("0\r\n\r\n");
    let (framing, body, ended) = client.read_body_to_end();
    assert_eq!((framing, ended), (Framing::Chunked, Ended::Complete));
    assert_eq!(body, b"beginmore");
}

#[test]
fn an_error_that_is_not_whole_in_a_second_is_judged_by_its_status() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() != "client-1" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            connection.send(head(401, "Content-Length: 100") + "{\"error\":");
            connection.wait_for_close(SOON);
            return;
        }
    });
    let proxy = start_proxy(&upstream, 2);
    let asked = Instant::now();
    assert_eq!(ask_for(&proxy, "m").status, 200);
    assert!(asked.elapsed() < LOOK_LIMIT, "{:?}", asked.elapsed());
    proxy.wait_for_log("Configuration 'primary-1' marked as failed");
}

#[test]
fn an_error_whose_framing_drips_holds_up_no_failover() {
    for framing in ["5;extension=", "0\r\nTrailer: "] {
        let upstream = RawUpstream::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.client_id() != "client-1" {
                    connection.send(OK);
                    continue;
                }
                connection.send(head(401, "Transfer-Encoding: chunked") + framing);
                while connection.send("x") {
                    std::thread::sleep(Duration::from_millis(500)); // the upstream's own pace
                }
                return;
            }
        });
        let proxy = start_proxy(&upstream, 2);
        let asked = Instant::now();
        assert_eq!(ask_for(&proxy, "m").status, 200);
        assert!(asked.elapsed() < LOOK_LIMIT, "{:?}", asked.elapsed());
    }
}

#[test]
fn an_error_that_breaks_off_breaks_off_for_the_client() {
    for (framing, body, ended) in [
        ("Content-Length: 100", "half".to_owned(), Ended::Short),
        (
            "Transfer-Encoding: chunked",
            chunk("half"),
            Ended::WithoutLastChunk,
        ),
        (
            "Transfer-Encoding: chunked",
            chunk("half") + "zz\r\n",
            Ended::WithoutLastChunk,
        ),
    ] {
        let upstream = RawUpstream::once(head(422, framing) + &body);
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let response = get(proxy.address(), "/v1/x");
        assert_eq!((response.status, response.text().as_str()), (422, "half"));
        assert_eq!(response.ended, ended);
        assert_eq!(proxy.wait_for_access_line(1).field("end"), "upstream_broke");
    }
}

#[test]
fn an_error_that_would_end_with_the_connection_is_not_whole_where_that_is_reset() {
    let upstream = RawUpstream::start(|connection| {
        if connection.read_request().is_some() {
            connection.send("HTTP/1.0 400 Bad Request\r\n\r\nhalf");
            connection.reset_at_end();
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/x");
    assert_eq!((response.status, response.text().as_str()), (400, "half"));
    assert_eq!(response.ended, Ended::WithoutLastChunk);
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "upstream_broke");
}

#[test]
fn an_error_that_ends_with_the_connection_is_judged_and_goes_on() {
    let answer = format!("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{EXPIRED}");
    let upstream = RawUpstream::once(answer);
    let proxy = start_proxy(&upstream, 1);
    let response = get(proxy.address(), "/v1/x");
    response.assert_text(400, EXPIRED);
    proxy.wait_for_log("Configuration 'primary-1' marked as failed. Remaining: 0/1");
}

#[test]
fn a_compressed_error_is_judged_and_stays_compressed() {
    for (coding, form) in [("gzip", "gzip"), ("deflate", "deflate"), ("deflate", "raw")] {
        let body = packed(form, EXPIRED.as_bytes());
        let sent = Answer::new(400, body.clone()).header("Content-Encoding", coding);
        let upstream = FakeFlow::answering(move |_| sent.clone());
        let proxy = start_proxy(&upstream, 1);
        let response = ask_for(&proxy, "m");
        assert_eq!(
            (response.status, response.header("content-encoding")),
            (400, Some(coding))
        );
        assert!(response.body == body);
        proxy.wait_for_log("Configuration 'primary-1' marked as failed");
    }
}

#[test]
fn an_error_that_unpacks_to_gigabytes_fills_no_memory() {
    let bomb = packed("gzip", &vec![b' '; 12 << 20]);
    assert!(bomb.len() < 16 * 1024, "{}", bomb.len());
    let sent = Answer::new(400, bomb.clone()).header("Content-Encoding", "gzip");
    let upstream = FakeFlow::answering(move |_| sent.clone());
    let proxy = start_proxy(&upstream, 1);
    let before = proxy.rss_kib();
    for _ in 0..10 {
        assert!(ask_for(&proxy, "m").body == bomb);
    }
    assert!(proxy.rss_kib().saturating_sub(before) < 2 * 1024);
}

#[test]
fn a_stream_of_events_is_not_looked_at() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/x", &[], b"{}");
    let asked = Instant::now();
    commands.send(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/event-stream\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.read_head().status, 429);
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    commands.send("0\r\n\r\n");
    client.read_body_to_end();
}

#[test]
fn an_error_without_a_body_is_not_waited_for() {
    let upstream = RawUpstream::always("HTTP/1.1 401 Unauthorized\r\nContent-Length: 50\r\n\r\n");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let asked = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.request("HEAD", "/v1/models", &[], b"").status, 401);
    }
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
}
