//! Web pages must not spend the user's credentials (contract section 9).

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, RawUpstream, Response, SOON, start_proxy,
};

/// Sends a request with these header lines, each ended by CRLF.
fn ask(proxy: &ProxyProcess, start: &str, lines: &str) -> Response {
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "{start} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
    ));
    client.read_response_to(start.split(' ').next().unwrap_or_default())
}

/// Asserts that requests with each of these header lines are answered by the upstream.
fn assert_served(proxy: &ProxyProcess, upstream: &FakeFlow, rows: &[&str]) {
    for lines in rows {
        let before = upstream.requests().len();
        let response = ask(proxy, "GET /v1/models", lines);
        assert_eq!(response.status, 200, "{lines:?}: {}", response.text());
        assert_eq!(upstream.requests().len(), before + 1, "{lines:?}");
    }
}

/// Asserts that requests with each of these header lines get 403 and do not reach the upstream.
fn assert_forbidden(proxy: &ProxyProcess, upstream: &FakeFlow, rows: &[&str]) {
    let before = upstream.requests().len();
    for lines in rows {
        for start in ["GET /v1/models", "HEAD /health", "HEAD /", "POST /v1/x"] {
            let response = ask(proxy, start, lines);
            let got = (response.status, response.error_code());
            assert_eq!(got, (403, "forbidden"), "{start} {lines:?}");
        }
    }
    assert_eq!(upstream.requests().len(), before);
}

fn origin_lines(origins: &[&str]) -> Vec<String> {
    let line = |origin: &&str| format!("Origin: {origin}\r\n");
    origins.iter().map(line).collect()
}

fn borrowed(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn local_origins_and_those_of_applications_are_served() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let origins = [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:3000",
        "http://app.localhost:5173",
        "http://tauri.localhost",
        "http://127.0.0.1:8080",
        "http://127.8.9.1",
        "http://[::1]:8080",
        "vscode-webview://1a2b3c",
        "vscode-file://vscode-app",
        "app://obsidian.md",
        "tauri://localhost",
        "capacitor://localhost",
        "ionic://localhost",
        "file://",
    ];
    for origin in origins {
        let lines = format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\n");
        assert_served(&proxy, &upstream, &[&lines]);
        let seen = upstream.requests().pop().expect("a request");
        assert_eq!(seen.header("origin"), Some(origin), "forwarded unchanged");
    }
}

#[test]
fn other_origins_are_forbidden() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = format!("http://{}:3000", machine.trim().to_ascii_lowercase());
    let origins = [
        "https://example.com",
        "http://example.com:8899",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        // Pages of other machines, and of this one under a name that others may have.
        "http://192.168.1.20:8080",
        "http://10.0.0.5",
        "http://[fd12:3456::1]",
        "http://host.docker.internal",
        &machine,
        "http://0.0.0.0:3000",
        "http://[::]",
        "http://8.8.8.8",
        "https://[2606:4700::1111]",
        // What a sandboxed frame of any web page sends.
        "null",
        // What no browser writes.
        "",
        "*",
        "localhost",
        "HTTP://localhost",
        "http://LOCALHOST",
        "http://localhost.",
        "http://.localhost",
        "http://localhost:",
        "http://localhost:80",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost/",
        "http:localhost",
        "https://",
        "http://localhost@example.com",
        "http://example.com@localhost",
        "http://example.com#localhost",
        "http://localhost http://example.com",
        "http://localhost, http://localhost",
        "http://127.1",
        "http://127.0.0.01",
        "http://2130706433",
        "http://[0::1]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://lo\u{441}alhost",
        "https://bücher.localhost",
        "file:///etc/passwd",
        "app://a/b",
        "app:x",
        // Other schemes: what browsers may show, and their extensions.
        "ws://localhost",
        "ftp://localhost",
        "javascript://localhost",
        "filesystem:http://localhost",
        "blob:http://localhost",
        "data:text/html,x",
        "about://blank",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://01234567-89ab-cdef-0123-456789abcdef",
        "safari-web-extension://localhost",
        "chrome://localhost",
        "devtools://devtools",
        "resource://localhost",
    ];
    assert_forbidden(&proxy, &upstream, &borrowed(&origin_lines(&origins)));
}

#[test]
fn two_origins_are_forbidden_whatever_they_are() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let (local, foreign) = (
        "Origin: http://localhost\r\n",
        "Origin: https://a.example\r\n",
    );
    for lines in [
        format!("{local}{foreign}"),
        format!("{foreign}{local}"),
        format!("{local}{local}"),
    ] {
        assert_forbidden(&proxy, &upstream, &[&lines]);
    }
}

#[test]
fn what_browsers_send_without_origin_for_web_pages_is_forbidden() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let rows = [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Site: cross-site\r\nReferer: http://localhost:3000/\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: Cross-Site\r\n",
        "Sec-Fetch-Site: none, cross-site\r\n",
        "Sec-Fetch-Site:\r\n",
        "Sec-Fetch-Site: another-word\r\n",
        // Speculation rules of a page: the browser says that the user asks.
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Purpose: prefetch\r\n",
        "Sec-Fetch-Site: none\r\nSec-Purpose: prefetch;prerender\r\n",
        "Referer: https://example.com/\r\n",
        "Referer: https://example.com\r\n",
        "Referer: http://192.168.1.20/\r\n",
        "Referer: http://localhost.example.com/\r\n",
        "Referer: http://localhost@example.com/\r\n",
        "Referer: http://example.com/http://localhost/\r\n",
        "Referer: http://example.com?http://localhost/\r\n",
        "Referer: http://example.com#http://localhost/\r\n",
        "Referer: http://localhost/\r\nReferer: https://example.com/\r\n",
        "Referer: about:blank\r\n",
        "Referer:\r\n",
        "Referer: https://example.com/\r\nSec-Fetch-Mode: cors\r\n",
    ];
    assert_forbidden(&proxy, &upstream, &rows);
}

#[test]
fn programs_and_users_are_served() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let rows = [
        "",
        // Node's fetch, and so the SDKs in Node.
        "Accept: */*\r\nAccept-Language: *\r\nSec-Fetch-Mode: cors\r\nUser-Agent: node\r\n",
        // An address that was typed into the browser, and a reload of what came.
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\n",
        "Sec-Fetch-Site: same-origin\r\nReferer: http://localhost:8899/v1/models\r\n",
        // Requests of Electron's main process.
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\n",
        "Referer: http://localhost:3000/app?x\r\n",
        "Referer: http://127.0.0.1:8899\r\n",
        "Referer: app://obsidian.md/index.html\r\n",
        "HTTP-Referer: https://example.com\r\nX-Referer: https://example.com\r\n",
    ];
    assert_served(&proxy, &upstream, &rows);
}

#[test]
fn the_script_of_a_service_worker_is_forbidden_to_all() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let rows = [
        "Service-Worker: script\r\nSec-Fetch-Site: same-origin\r\n",
        "Service-Worker: script\r\n",
        "Service-Worker: x\r\n",
        "Sec-Fetch-Dest: serviceworker\r\nSec-Fetch-Site: same-origin\r\n",
        "Origin: http://localhost\r\nService-Worker: script\r\n",
    ];
    assert_forbidden(&proxy, &upstream, &rows);
}

#[test]
fn a_web_page_is_forbidden_in_absolute_form_too() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let host = upstream.address();
    let start = format!("GET http://{host}/v1/models");
    for lines in [
        "Origin: https://example.com\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Service-Worker: script\r\n",
    ] {
        ask(&proxy, &start, lines).assert_error_to(lines, 403, "forbidden");
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(ask(&proxy, &start, "").status, 200);
}

#[test]
fn of_the_proxys_own_pages_health_and_ready_are_open_and_the_page_can_be_navigated_to() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let foreign = "Origin: https://example.com\r\n";
    let image = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    let plain_link = "Referer: https://example.com/\r\n";
    for (path, lines, status) in [
        ("/-/health", foreign, 200),
        ("/-/health", image, 200),
        ("/-/ready", link, 200),
        ("/-/status", foreign, 403),
        ("/-/status", image, 403),
        ("/-/status", link, 403),
        ("/-", link, 403),
        ("/-/", foreign, 403),
        ("/-/", image, 403),
        ("/-/", link, 200),
        ("/-/", plain_link, 200),
        ("/v1/-/", link, 403),
        ("/", link, 403),
    ] {
        let response = ask(&proxy, &format!("GET {path}"), lines);
        assert_eq!(response.status, status, "{path} {lines:?}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn origins_that_are_allowed_are_compared_whole() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option(
            "--allow-origin",
            "https://app.example:8443, HTTPS://B.example:443",
        )
        .option("--allow-origin", "chrome-extension://abcdef")
        .start();
    let served = [
        "https://app.example:8443",
        "https://b.example",
        "chrome-extension://abcdef",
        "http://localhost:3000",
    ];
    assert_served(&proxy, &upstream, &borrowed(&origin_lines(&served)));
    let forbidden = [
        "https://app.example",
        "https://app.example:84430",
        "http://app.example:8443",
        "https://a.app.example:8443",
        "https://app.example:8443.evil.example",
        "https://app.example:8443/",
        "https://b.example:443",
        "HTTPS://B.example:443",
        "chrome-extension://abcdefg",
        "null",
    ];
    assert_forbidden(&proxy, &upstream, &borrowed(&origin_lines(&forbidden)));
    // What such a page sends without Origin is no call of its scripts.
    let image = "Sec-Fetch-Site: cross-site\r\nReferer: https://app.example:8443/\r\n";
    assert_forbidden(&proxy, &upstream, &[image]);
    let from_there = "Referer: https://app.example:8443/page\r\n";
    assert_served(&proxy, &upstream, &[from_there]);
}

#[test]
fn what_is_no_origin_stops_the_start() {
    for value in [
        "null",
        "*",
        "app.example",
        "https://*.example",
        "https://app.example/",
        "https://a@app.example",
        "https://app.example:0",
        "https://bücher.example",
        "https://a.example,,https://b.example",
    ] {
        let finished = ProxyProcess::to("http://127.0.0.1:9/x")
            .env("FLOW_PROXY_ALLOW_ORIGIN", value)
            .run_to_end(SOON);
        assert_eq!(finished.code, Some(2), "{value}: {finished:?}");
        let stderr = &finished.stderr;
        assert!(stderr.contains("FLOW_PROXY_ALLOW_ORIGIN: '"), "{stderr}");
        assert!(
            stderr.contains("such as https://app.example:8443"),
            "{stderr}"
        );
    }
}

#[test]
fn a_rejection_names_what_was_seen_and_the_way_in() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let told = |lines| ask(&proxy, "GET /v1/models", lines).text();
    for (lines, parts) in [
        (
            "Origin: https://x.example:1\r\n",
            [
                "(Origin 'https://x.example:1')",
                "--allow-origin https://x.example:1\"",
            ],
        ),
        (
            "Origin: null\r\n",
            ["(Origin 'null')", "by --allow-origin\""],
        ),
        (
            "Origin: https://x.example --allow-host y\r\n",
            [
                "(Origin 'https://x.example --allow-host y')",
                "by --allow-origin\"",
            ],
        ),
        ("Origin: https://\"'\\<x>\u{7f}é\r\n", ["", "\""]),
        (
            "Referer: https://x.example/page?token=hush\r\n",
            [
                "(Referer 'https://x.example')",
                "--allow-origin https://x.example\"",
            ],
        ),
        (
            "Sec-Fetch-Site: cross-site\r\n",
            ["(Sec-Fetch-Site 'cross-site')", "is in --allow-origin"],
        ),
        (
            "Sec-Fetch-Site: none\r\nSec-Purpose: prefetch\r\n",
            ["(Sec-Purpose 'prefetch')", "is in --allow-origin"],
        ),
        ("Service-Worker: script\r\n", ["service worker", ""]),
    ] {
        let body = told(lines);
        for part in parts {
            assert!(body.contains(part), "{lines:?}: {part:?} is not in {body}");
        }
        assert!(!body.contains("hush"), "{body}");
    }
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("error")), (403, "forbidden"));
    assert_eq!((line.field("config"), line.number("attempts")), ("-", 0));
}

#[test]
fn a_rejection_is_in_the_form_of_the_api() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let image = "Sec-Fetch-Site: cross-site\r\n";
    let body = ask(&proxy, "GET /v1/messages", image).json();
    assert_eq!(body["error"]["type"], "permission_error");
    let body = ask(&proxy, "GET /v1/models", image).json();
    assert_eq!(body["error"]["code"], "forbidden");
}

#[test]
fn the_body_of_a_forbidden_request_is_no_request() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 1);
    let mut client = RawClient::connect(proxy.address());
    client.send(
        "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 46\r\n\r\n\
         GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n\
         GET /v1/next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 403);
    client.read_raw_to_close(SOON);
    assert!(
        !upstream
            .targets()
            .iter()
            .any(|target| target.contains("smuggled"))
    );
}

#[test]
fn a_document_of_the_upstream_is_shown_in_a_sandbox() {
    let upstream = FakeFlow::answering(|_| {
        Answer::new(200, "<script>1</script>")
            .header("Content-Type", "text/html")
            .header("Content-Security-Policy", "script-src *")
            .header("X-Content-Type-Options", "none")
    });
    let proxy = start_proxy(&upstream, 1);
    let response = ask(
        &proxy,
        "GET /page",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n",
    );
    response.assert_text(200, "<script>1</script>");
    // Browsers go by all policies, but by the first of the latter.
    let policies = response.values("content-security-policy");
    assert_eq!(policies, ["script-src *", "sandbox"]);
    assert_eq!(response.values("x-content-type-options"), ["nosniff"]);

    let response = ask(&proxy, "GET /page", "Sec-Fetch-Mode: cors\r\n");
    assert_eq!(response.values("content-security-policy"), ["script-src *"]);
    assert_eq!(response.values("x-content-type-options"), ["none"]);
}

#[test]
fn an_error_and_a_redirect_of_the_upstream_are_shown_in_a_sandbox_too() {
    for head in [
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2",
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2",
    ] {
        let upstream = RawUpstream::start(move |connection| {
            while connection.read_request().is_some() {
                connection.send(format!("{head}\r\n\r\nok"));
            }
        });
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let response = ask(&proxy, "GET /v1/x", "Sec-Fetch-Mode: navigate\r\n");
        assert_eq!(response.header("content-security-policy"), Some("sandbox"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    }
}
