//! Made-up credentials, and which of them requests are sent with.

use super::{ProxyProcess, Response, Upstream, get, post};

/// Makes the n-th credential, counting from 1: name `primary-<n>`, client id `client-<n>`.
pub fn credential(n: usize) -> serde_json::Value {
    serde_json::json!({
        "name": format!("primary-{n}"),
        "clientId": format!("client-{n}"),
        "clientSecret": format!("fake-secret-{n}-not-real"),
        "tenant": format!("tenant-{n}"),
    })
}

/// Makes the first `count` credentials.
pub fn credentials(count: usize) -> Vec<serde_json::Value> {
    (1..=count).map(credential).collect()
}

/// Starts a proxy with the first `credential_count` credentials.
pub fn start_proxy(upstream: &Upstream, credential_count: usize) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .secrets(&credentials(credential_count))
        .start()
}

/// Sends `count` requests, which must succeed; returns the client ids that they were sent with.
pub fn next_clients(upstream: &Upstream, proxy: &ProxyProcess, count: usize) -> Vec<String> {
    let before = upstream.client_ids().len();
    for _ in 0..count {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    }
    upstream.client_ids().split_off(before)
}

/// Sends `count` requests for `model`, which must succeed; returns the client ids that they were sent
/// with.
pub fn clients_for(
    upstream: &Upstream,
    proxy: &ProxyProcess,
    model: &str,
    count: usize,
) -> Vec<String> {
    let before = upstream.client_ids().len();
    for _ in 0..count {
        assert_eq!(ask_for(proxy, model).status, 200, "{model}");
    }
    upstream.client_ids().split_off(before)
}

/// Asks for a chat completion by `model`.
pub fn ask_for(proxy: &ProxyProcess, model: &str) -> Response {
    let body = serde_json::json!({"messages": [], "model": model}).to_string();
    post(proxy.address(), "/v1/chat/completions", body.as_bytes())
}

/// Asks the proxy how many of its configurations are available.
pub fn available(proxy: &ProxyProcess) -> u64 {
    let response = get(proxy.address(), "/-/ready");
    let count = &response.json()["configurations"]["available"];
    count.as_u64().expect("a number")
}
