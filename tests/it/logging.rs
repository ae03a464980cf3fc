//! What the log tells, and what it never tells (contract section 6).

use std::time::{Duration, Instant};

use crate::support::{
    Answer, CHUNKED_POST_HEAD, ClosedPort, FakeFlow, POST_START, ProxyProcess, RawClient,
    RawUpstream, SOON, chunked, credentials, expected_token, get, post, rejections_counted,
    start_proxy, wait_until,
};

/// Tells whether a line is `2024-01-15 10:30:45 - LEVEL - message`.
fn has_the_format(line: &str) -> bool {
    let mut parts = line.splitn(3, " - ");
    let (time, level) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00 00:00:00"
        && ["DEBUG", "INFO", "WARNING", "ERROR"].contains(&level)
        && parts.next().is_some_and(|message| !message.is_empty())
}

#[test]
fn every_line_has_its_time_level_and_message() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url())
        .option("--log-level", "DEBUG")
        .start();
    get(proxy.address(), "/v1/models");
    get(proxy.address(), "/-/x");
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    for line in proxy.log().lines() {
        assert!(has_the_format(line), "{line:?}");
    }
}

#[test]
fn a_pipe_gets_no_colours() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    get(proxy.address(), "/-/x");
    proxy.wait_for_access_line(1);
    assert!(!proxy.log().contains('\x1b'));
}

#[test]
fn the_access_line_tells_the_story_of_the_request() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, vec![b'x'; 20_480]));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let body = [b'y'; 512];
    let sent = [("x-request-id", "my-id-1")];
    client.request("POST", "/v1/chat/completions?key=hidden", &sent, &body);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.level.as_str(), line.status), ("INFO", 200));
    assert_eq!(line.client, client.local_address());
    assert_eq!(line.request, "POST /v1/chat/completions");
    assert_eq!(
        (line.field("config"), line.number("attempts")),
        ("primary-1", 1)
    );
    assert_eq!((line.number("in"), line.number("out")), (512, 20_480));
    assert_eq!((line.field("end"), line.field("id")), ("ok", "my-id-1"));
    assert!(line.number("ttfb_ms") <= line.number("duration_ms"));
    assert!(line.number("duration_ms") < 15_000);
    assert!(!proxy.log().contains("hidden"), "the query is not logged");
    let raw = proxy.wait_for_log("\"POST /v1/chat/completions\"");
    let order = [
        " 200 config='",
        " attempts=",
        " ttfb_ms=",
        " duration_ms=",
        " in=",
        " out=",
        " end=",
        " id=",
    ];
    let places: Vec<usize> = order
        .iter()
        .map(|part| raw.find(part).expect("a field"))
        .collect();
    assert!(places.is_sorted(), "{raw}");
}

#[test]
fn body_bytes_are_counted_without_their_coding() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, vec![b'x'; 5_000]).chunked());
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(CHUNKED_POST_HEAD);
    client.send(chunked(&[b'y'; 3_000], 100));
    client.read_response();
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.number("in"), line.number("out")), (3_000, 5_000));
}

#[test]
fn every_request_has_exactly_one_access_line() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for n in 0..20 {
        client.request("GET", &format!("/v1/{n}"), &[], b"");
    }
    get(proxy.address(), "/-/health"); // a probe, which is logged at DEBUG only
    get(proxy.address(), "/-/unknown");
    let mut bad = RawClient::connect(proxy.address());
    bad.send("GET /v1/bad HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n");
    bad.read_response();
    proxy.wait_for_access_line(22);
    let lines = proxy.access_lines();
    let rejected = lines
        .iter()
        .find(|line| line.status == 400)
        .expect("the rejection's line");
    assert_eq!(rejected.level, "WARNING");
    assert_eq!(
        (rejected.field("config"), rejected.number("attempts")),
        ("-", 0)
    );
    assert_eq!(lines.len(), 22);
}

#[test]
fn the_level_of_the_access_line_follows_the_status() {
    let upstream = FakeFlow::answering_the_status_asked_for("");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let levels = [
        (200, "INFO"),
        (302, "INFO"),
        (400, "WARNING"),
        (499, "WARNING"),
        (500, "ERROR"),
    ];
    for (n, (status, level)) in levels.into_iter().enumerate() {
        get(proxy.address(), &format!("/v1/{status}"));
        let line = proxy.wait_for_access_line(n + 1);
        assert_eq!((line.status, line.level.as_str()), (status, level));
    }
}

#[test]
fn the_clients_request_id_is_forwarded_returned_and_logged() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [("X-Request-Id", "from-the-client")];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
    assert_eq!(response.header("x-request-id"), Some("from-the-client"));
    assert_eq!(
        upstream.request().header("x-request-id"),
        Some("from-the-client")
    );
    assert_eq!(proxy.wait_for_access_line(1).field("id"), "from-the-client");
}

#[test]
fn a_request_without_an_id_gets_one_of_its_own() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut ids = Vec::new();
    for n in 0..20 {
        let response = get(proxy.address(), "/v1/x");
        let id = response.header("x-request-id").expect("an id").to_owned();
        assert_eq!(
            upstream.requests()[n].header("x-request-id"),
            Some(id.as_str())
        );
        assert_eq!(proxy.wait_for_access_line(n + 1).field("id"), id);
        assert!(id.len() >= 8, "{id}");
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "no two requests share an id");
}

#[test]
fn the_upstreams_own_request_id_is_returned() {
    let upstream =
        FakeFlow::answering(|_| Answer::ok().header("x-request-id", "from-the-upstream"));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [("X-Request-Id", "from-the-client")];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
    assert_eq!(response.values("x-request-id"), ["from-the-upstream"]);
    assert_eq!(proxy.wait_for_access_line(1).field("id"), "from-the-client");
}

#[test]
fn a_token_or_secret_that_is_sent_back_is_not_logged() {
    let upstream = FakeFlow::answering(|request| {
        let token = request.header("authorization").unwrap_or_default();
        let model = "/v1/fake-secret-1-not-real-model";
        let body = serde_json::json!({ "model": model }).to_string();
        let id = match request.header("x-ask") {
            Some("token") => token.to_owned(),
            _ => "a-fake-secret-1-not-real-z".to_owned(),
        };
        Answer::new(400, body)
            .header("Content-Type", "application/json")
            .header("x-request-id", &id)
            .header("x-litellm-call-id", &id)
    });
    let proxy = start_proxy(&upstream, 1);
    let token = "eyJhbGciOiJIUzI1NiJ9.fake";
    let secret = "fake-secret-1-not-real";
    for (number, (ask, pasted)) in [("token", token), ("secret", secret)].iter().enumerate() {
        let sent = [
            ("x-ask", *ask),
            ("x-request-id", pasted),
            ("user-agent", pasted),
            ("session-id", pasted),
        ];
        let body = format!(r#"{{"model":"{pasted}"}}"#);
        let path = format!("/v1/{pasted}/x");
        let mut client = RawClient::connect(proxy.address());
        let response = client.request("POST", &path, &sent, body.as_bytes());
        assert_eq!(response.status, 400);
        let line = proxy.wait_for_access_line(number + 1);
        assert_eq!(line.request, "POST -");
        for field in ["id", "upstream_id", "call_id", "agent", "session", "model"] {
            assert_eq!(line.field(field), "-", "{field}: {line:?}");
        }
        // It is passed on, nevertheless: the client may know what it is.
        assert_ne!(response.header("x-request-id"), Some("-"));
    }
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "{token} /{token} HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    ));
    assert_eq!(client.read_response().status, 403);
    proxy.wait_for_access_line(3);
    let log = proxy.log();
    assert!(!log.contains("eyJ") && !log.contains(secret), "{log}");
}

#[test]
fn the_proxys_own_errors_carry_the_request_id() {
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::to(&closed.url()).start();
    let sent = [("X-Request-Id", "from-the-client")];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
    assert_eq!(response.status, 502);
    assert_eq!(response.header("x-request-id"), Some("from-the-client"));
}

#[test]
fn a_request_id_cannot_forge_a_line() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let forged = "x\" 200 config='forged' end=ok id=y \x1b[31m";
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "GET /v1/x\"%0a HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {}\r\n\r\n",
        forged.replace('\x1b', "")
    ));
    client.read_response();
    get(proxy.address(), "/v1/next");
    proxy.wait_for_log("/v1/next");
    let with_access: Vec<String> = proxy
        .log()
        .lines()
        .filter(|l| l.contains("duration_ms="))
        .map(str::to_owned)
        .collect();
    assert_eq!(with_access.len(), 2);
    assert!(
        with_access[0].contains("config='primary-1' attempts=1"),
        "{}",
        with_access[0]
    );
}

/// Sends requests that hold secrets in every place, and is answered with others.
fn exchange_secrets(proxy: &ProxyProcess) {
    let sent = [
        ("Authorization", "Bearer client-authorization"),
        ("Proxy-Authorization", "Basic client-proxy-authorization"),
        ("Cookie", "client-cookie=1"),
        ("X-Api-Key", "client-api-key"),
    ];
    let mut client = RawClient::connect(proxy.address());
    let target = "/v1/x?query=client-query";
    for _ in 0..3 {
        client.request("POST", target, &sent, b"client-request-body");
    }
    let mut bad = RawClient::connect(proxy.address());
    bad.send(format!("{POST_START}Cookie: client-cookie=2\r\n"));
    bad.send("Authorization: Bearer client-authorization\r\nbroken client-line\r\n\r\nclient-request-body");
    bad.read_response();
    get(proxy.address(), "/v1/../x?query=client-query");
}

/// Lists the tokens and secrets of the first `count` credentials.
fn secrets_of_credentials(count: usize) -> Vec<String> {
    let of_one = |n: usize| {
        let secret = format!("fake-secret-{n}-not-real");
        let (client, tenant) = (format!("client-{n}"), format!("tenant-{n}"));
        [expected_token(&client, &secret, &tenant), secret]
    };
    (1..=count).flat_map(of_one).collect()
}

#[test]
fn the_log_never_holds_a_secret_at_any_level() {
    let upstream = FakeFlow::answering(|request| {
        let answer = match request.client_id().as_str() {
            "client-1" => Answer::new(401, "upstream-body-401"),
            "client-2" => Answer::limited(Some("1")),
            _ => Answer::new(200, "upstream-body-200"),
        };
        answer.header("Set-Cookie", "upstream-cookie=1")
    });
    let mut proxy = ProxyProcess::to(&upstream.url())
        .secrets(&credentials(3))
        .option("--log-level", "DEBUG")
        .start();
    exchange_secrets(&proxy);
    proxy.signal("HUP");
    wait_until("some log", SOON, || proxy.access_lines().len() >= 5);
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    let file = std::fs::read_to_string(proxy.file("flow_proxy_plugin.log")).expect("the log file");
    let log = proxy.log() + &file;
    assert!(
        log.contains("DEBUG") || log.contains("INFO"),
        "there is something to look at"
    );
    let mut forbidden: Vec<String> = [
        "upstream-body",
        "upstream-cookie",
        "client-authorization",
        "client-proxy-authorization",
        "client-cookie",
        "client-api-key",
        "client-query",
        "client-request-body",
        "client-line",
        "eyJ",
    ]
    .map(str::to_owned)
    .into();
    forbidden.extend(secrets_of_credentials(3));
    for text in forbidden {
        assert!(!log.contains(&text), "{text:?} in the log:\n{log}");
    }
}

#[test]
fn the_default_log_file_gets_the_same_lines() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    get(proxy.address(), "/v1/models");
    proxy.wait_for_access_line(1);
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    let file = std::fs::read_to_string(proxy.file("flow_proxy_plugin.log")).expect("the log file");
    // Lines of two threads in the same moment may be in one order here and in the other there.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    wait_until("the same lines on stderr", SOON, || {
        sorted(&proxy.log()) == sorted(&file)
    });
}

#[test]
fn a_log_file_is_appended_to() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .with_file("proxy.log", "an old line\n")
        .option("--log-file", "proxy.log")
        .start();
    get(proxy.address(), "/v1/models");
    wait_until("the access line in the file", SOON, || {
        let text = std::fs::read_to_string(proxy.file("proxy.log")).expect("a text file");
        text.starts_with("an old line\n") && text.contains("\"GET /v1/models\" 200")
    });
}

#[test]
fn the_default_log_file_that_cannot_be_opened_is_a_warning() {
    let upstream = FakeFlow::start();
    let builder = ProxyProcess::to(&upstream.url());
    std::fs::create_dir(builder.path("flow_proxy_plugin.log")).expect("our own directory");
    let proxy = builder.start();
    assert!(
        proxy
            .wait_for_log("flow_proxy_plugin.log")
            .contains(" - WARNING - ")
    );
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_log_file_that_was_asked_for_and_cannot_be_opened_stops_the_start() {
    let finished = ProxyProcess::to("http://127.0.0.1:9/x")
        .option("--log-file", "no/such/directory/proxy.log")
        .run_to_end(SOON);
    assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
    assert!(
        finished.stderr.contains("no/such/directory/proxy.log"),
        "{finished:?}"
    );
}

#[test]
fn no_log_file_is_written_where_none_is_asked_for() {
    for name in ["none", "-"] {
        let upstream = FakeFlow::start();
        let proxy = ProxyProcess::to(&upstream.url())
            .option("--log-file", name)
            .start();
        get(proxy.address(), "/v1/models");
        proxy.wait_for_access_line(1);
        proxy.signal("HUP");
        proxy.wait_for_log("Reloaded 1 configurations");
        let files = std::fs::read_dir(proxy.file("")).expect("our own directory");
        let names: Vec<_> = files.flatten().map(|file| file.file_name()).collect();
        assert_eq!(names, ["secrets.json"], "{name}");
        assert!(!proxy.log().contains(" - ERROR - "), "{}", proxy.log());
    }
}

#[test]
fn at_the_limit_on_file_sizes_the_process_lives_and_says_so_once() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url())
        .option("--log-file", "proxy.log")
        .after_shell("ulimit -f 4")
        .start();
    for _ in 0..50 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    }
    proxy.wait_for_access_line(50);
    proxy.wait_for_log("Cannot write to log file");
    assert!(!proxy.has_exited());
    let log = proxy.log();
    assert_eq!(log.matches("Cannot write to").count(), 1, "{log}");
    // A shell counts in blocks of 512 or 1024 bytes.
    let length = std::fs::metadata(proxy.file("proxy.log"))
        .expect("the log file")
        .len();
    assert!((2048..=4096).contains(&length), "{length} bytes");
}

#[test]
fn a_level_hides_the_levels_below_it() {
    let upstream = FakeFlow::start();
    for level in ["WARNING", "warn"] {
        let proxy = ProxyProcess::to(&upstream.url())
            .option("--log-level", level)
            .start_silent();
        get(proxy.address(), "/v1/models");
        get(proxy.address(), "/-/unknown");
        proxy.wait_for_access_line(1);
        assert_eq!(
            proxy.access_lines()[0].status,
            404,
            "only what is a warning"
        );
        assert!(!proxy.log().contains(" - INFO - ") && !proxy.log().contains(" - DEBUG - "));
    }
}

#[test]
fn the_start_tells_options_configurations_and_address() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 2);
    let log = proxy.log();
    for part in [
        &upstream.url(),
        "primary-1",
        "primary-2",
        "Listening on http://127.0.0.1:",
    ] {
        assert!(log.contains(part), "{part:?} in\n{log}");
    }
}

#[test]
fn the_time_to_the_first_byte_is_not_the_duration() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
        std::thread::sleep(Duration::from_secs(1)); // the upstream's own pace
        connection.send("k");
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(post(proxy.address(), "/v1/x", b"{}").text(), "ok");
    let line = proxy.wait_for_access_line(1);
    assert!(line.number("duration_ms") >= 990, "{line:?}");
    assert!(line.number("ttfb_ms") < 900, "{line:?}");
}

#[test]
fn the_upstreams_ids_are_logged_beside_the_clients() {
    let upstream = FakeFlow::answering(|request| {
        let status = if request.target.ends_with("/bad") {
            400
        } else {
            200
        };
        Answer::new(status, "x")
            .header("x-request-id", "theirs")
            .header("x-litellm-call-id", "call-1")
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [("X-Request-Id", "mine")];
    let mut client = RawClient::connect(proxy.address());
    client.request("GET", "/v1/good", &sent, b"");
    client.request("GET", "/v1/bad", &sent, b"");
    let (good, bad) = (proxy.wait_for_access_line(1), proxy.wait_for_access_line(2));
    assert_eq!(
        (good.field("id"), good.field("upstream_id")),
        ("mine", "theirs")
    );
    assert_eq!(
        (good.field("call_id"), bad.field("call_id")),
        ("", "call-1")
    );
    assert_eq!(bad.field("upstream_id"), "theirs");
}

#[test]
fn anthropics_sdks_are_given_the_id_that_they_show() {
    let upstream = FakeFlow::answering(|request| match request.target.ends_with("/own") {
        true => Answer::ok().header("request-id", "theirs"),
        false => Answer::ok(),
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let id_of = |path: &str| {
        let sent = [("X-Request-Id", "mine")];
        let response = RawClient::connect(proxy.address()).request("POST", path, &sent, b"{}");
        response.header("request-id").map(str::to_owned)
    };
    assert_eq!(id_of("/v1/messages").as_deref(), Some("mine"));
    assert_eq!(id_of("/v1/messages/own").as_deref(), Some("theirs"));
    assert_eq!(
        id_of("/v1/messages/../x").as_deref(),
        Some("mine"),
        "own errors too"
    );
    assert_eq!(id_of("/v1/chat/completions"), None);
}

#[test]
fn own_rejections_tell_their_reason_and_bad_ends_are_seen_at_warning() {
    let upstream = RawUpstream::once("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-level", "WARNING")
        .start_silent();
    let sent = [("X-Request-Id", "mine")];
    RawClient::connect(proxy.address()).request("GET", "/v1/half", &sent, b"");
    let line = proxy.wait_for_access_line(1);
    assert_eq!(
        (line.level.as_str(), line.field("end")),
        ("WARNING", "upstream_broke")
    );
    assert_eq!(
        (line.request.as_str(), line.field("id")),
        ("GET /v1/half", "mine")
    );
    assert_eq!(line.field("config"), "primary-1");
    get(proxy.address(), "/v1/../x");
    let mut bad = RawClient::connect(proxy.address());
    bad.send("GET /v1/x HTTP/2.0\r\n\r\n");
    bad.read_response();
    let mut errors: Vec<String> = (2..=3)
        .map(|n| proxy.wait_for_access_line(n).field("error").to_owned())
        .collect();
    // Two connections: their lines come in any order.
    errors.sort();
    assert_eq!(errors, ["bad_request", "version_not_supported"]);
}

#[test]
fn a_base_url_with_a_slash_or_version_too_many_is_named() {
    let upstream = FakeFlow::answering_the_status_asked_for("");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for (path, named) in [
        ("//v1/messages/404", "'//'"),
        ("/v1/v1/messages/404", "'/v1/v1/'"),
    ] {
        get(proxy.address(), path);
        proxy.wait_for_log(&format!(
            " - WARNING - A request was answered 404: the path begins with {named}: the base URL must"
        ));
        let own = get(proxy.address(), &format!("{path}/../x"));
        own.assert_error_to(path, 400, "bad_request");
        assert_eq!(
            own.json()["type"],
            "error",
            "{path}: in the dialect of what was meant"
        );
    }
    get(proxy.address(), "/v1/404");
    get(proxy.address(), "//v1/200");
    proxy.wait_for_access_line(6);
    assert_eq!(proxy.log().matches("A request was answered 404").count(), 2);
}

#[test]
fn paths_and_methods_are_escaped_and_cut_to_512_bytes() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let long = format!("/v1/{}", "'".repeat(10_000));
    client.request("GET", &long, &[], b"");
    client.request("G'$`|", "/v1/(x);%2f%zz$y", &[], b"");
    let lines = [1, 2].map(|count| proxy.wait_for_access_line(count).request);
    assert!(lines[0].starts_with("GET /v1/%27%27"), "{}", lines[0]);
    assert!(lines[0].len() <= "GET ".len() + 512, "{}", lines[0].len());
    assert_eq!(lines[1], "G%27%24%60%7C /v1/%28x%29%3B%2f%25zz%24y");
    // Those that are rejected before they have come whole, too.
    for head in [
        format!("GET /{} HTTP/9.9\r\n\r\n", "'".repeat(10_000)),
        format!(
            "{} / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "X".repeat(10_000)
        ),
    ] {
        let mut bad = RawClient::connect(proxy.address());
        bad.send(head);
        bad.read_response();
    }
    let lines = [3, 4].map(|count| proxy.wait_for_access_line(count).request);
    for line in lines {
        assert!((400..=1_025).contains(&line.len()), "{line}");
    }
}

#[test]
fn rejected_requests_cannot_wash_the_log_away() {
    const ON_ONE_CONNECTION: usize = 3_000;
    const ALONE: usize = 100;
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let began = Instant::now();
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..ON_ONE_CONNECTION / 100 {
        client.send("GET /v1/x HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(100));
        for _ in 0..100 {
            assert_eq!(client.read_response().status, 403);
        }
    }
    for _ in 0..ALONE {
        let mut bad = RawClient::connect(proxy.address());
        bad.send("GET /v1/x HTTP/2.0\r\n\r\n");
        assert_eq!(bad.read_response().status, 505);
    }
    let counts = || rejections_counted(&proxy.log());
    wait_until("a count of each request", SOON, || {
        proxy.access_lines().len() + counts().iter().sum::<usize>() == ON_ONE_CONNECTION + ALONE
    });
    // The first second that began has 50 lines, and so has each later one.
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("few") + 1;
    let (lines, counts) = (proxy.access_lines().len(), counts().len());
    assert!(
        (50..=50 * seconds).contains(&lines),
        "{lines} in {seconds} s"
    );
    assert!((1..=seconds).contains(&counts), "{counts} in {seconds} s");
    // What is forwarded is logged in any case.
    for n in 0..60 {
        assert_eq!(get(proxy.address(), &format!("/v1/good/{n}")).status, 200);
    }
    wait_until("a line of each", SOON, || {
        let log = proxy.log();
        log.matches("\"GET /v1/good/").count() == 60
    });
}
