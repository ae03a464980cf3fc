//! Responses in progress: the test says what the upstream sends, and when.

use super::{Commands, ProxyProcess, RawClient, RawUpstream};

/// Starts a proxy in front of an upstream on command, and a client that has sent its request.
pub fn start_request(options: &[(&str, &str)]) -> (RawUpstream, Commands, ProxyProcess, RawClient) {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).options(options).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/chat/completions", &[], br#"{"stream":true}"#);
    (upstream, commands, proxy, client)
}

/// Starts the same, with a stream of which the client has read `one`.
pub fn start_stream(options: &[(&str, &str)]) -> (RawUpstream, Commands, ProxyProcess, RawClient) {
    let (upstream, commands, proxy, mut client) = start_request(options);
    commands.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    client.read_head();
    client.read_body_until("the first piece", |body| body == b"one");
    (upstream, commands, proxy, client)
}
