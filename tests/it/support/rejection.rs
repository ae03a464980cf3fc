//! Attacks that the proxy must reject: with its own error, and without a word to the upstream.

use super::{FakeFlow, ProxyProcess, RawClient, get, send_and_read};

/// What a request smuggled behind an attack would look like.
pub const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends `attack` and asserts that it gets one response, which is one of `errors`, and a close.
pub fn assert_rejected_with(attack: impl AsRef<[u8]>, errors: &[(u16, &str)]) {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(attack);
    let response = client.read_response();
    let got = (response.status, response.error_code());
    assert!(errors.contains(&got), "{got:?} is none of {errors:?}");
    assert!(response.json()["error"]["message"].is_string());
    response.assert_announces_close();
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 0, "the attack stays outside");
    assert_eq!(
        get(proxy.address(), "/v1/models").status,
        200,
        "the next request is served"
    );
    assert_eq!(upstream.requests().len(), 1);
}

/// Sends `attack` and asserts that it gets a 400, as [`assert_rejected_with`].
pub fn assert_bad_request(attack: impl AsRef<[u8]>) {
    assert_rejected_with(attack, &[(400, "bad_request")]);
}

/// Sends `request`, which may be too long to be read whole, and asserts an error and a close.
pub fn assert_error_and_close(
    proxy: &ProxyProcess,
    request: impl AsRef<[u8]>,
    status: u16,
    code: &str,
) {
    let (mut client, response) = send_and_read(proxy, request);
    response.assert_error(status, code);
    client.assert_closed();
}
