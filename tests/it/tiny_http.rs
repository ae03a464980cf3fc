//! Why the front is not tiny_http: one request with a large declared length ends a process that is
//! built on it, although its handler reads nothing. The proxy answers it, and the next.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::{FakeFlow, ProxyProcess, RawClient, SOON, get, wait_for};

/// More than any address space has room for, so that the allocation fails at once and takes nothing.
const DECLARED_BYTES: &str = "999999999999999";

/// Tells this binary, where it is started once more, that it is the server.
const IS_SERVER: &str = "TINY_HTTP_TEST_SERVER";

fn request() -> String {
    format!(
        "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {DECLARED_BYTES}\r\n\r\nbegin"
    )
}

/// A process of its own with a tiny_http server that answers 413 to everything; killed on drop.
struct TinyHttpProcess {
    child: Child,
    address: SocketAddr,
}

impl TinyHttpProcess {
    fn start() -> TinyHttpProcess {
        let this_binary = std::env::current_exe().expect("a path of its own");
        let mut child = Command::new(this_binary)
            .args([
                "--exact",
                "tiny_http::the_server_of_the_other_test",
                "--nocapture",
            ])
            .env(IS_SERVER, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this binary can be started");
        let stdout = child.stdout.take().expect("a pipe");
        let address = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("serving ")?.1.parse().ok())
            .expect("the server tells its address");
        TinyHttpProcess { child, address }
    }
}

impl Drop for TinyHttpProcess {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves where it is started as the process of [`TinyHttpProcess`]; is not a test otherwise.
#[test]
fn the_server_of_the_other_test() {
    if std::env::var_os(IS_SERVER).is_none() {
        return;
    }
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free loopback port");
    println!("serving {}", server.server_addr());
    for request in server.incoming_requests() {
        let rejection = tiny_http::Response::from_string("too large").with_status_code(413);
        // The client may be gone; the body is not read.
        let _ = request.respond(rejection);
    }
}

#[test]
fn a_large_declared_length_ends_a_tiny_http_server_and_not_the_proxy() {
    let mut tiny_http = TinyHttpProcess::start();
    assert_eq!(get(tiny_http.address, "/").status, 413, "it serves");
    RawClient::connect(tiny_http.address).send(request());
    let status = wait_for("tiny_http's process to end", SOON, || {
        tiny_http.child.try_wait().expect("a child of ours")
    });
    let mut stderr = String::new();
    let pipe = tiny_http.child.stderr.as_mut().expect("a pipe");
    pipe.read_to_string(&mut stderr).expect("text");
    assert_eq!(status.code(), None, "ended by a signal: {status}");
    let what = format!("memory allocation of {DECLARED_BYTES} bytes failed");
    assert!(stderr.contains(&what), "{stderr}");

    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(request());
    assert_eq!(client.read_response().status, 413);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(upstream.requests().len(), 1, "only the good request");
}
