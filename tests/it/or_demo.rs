//! `--or-demo`: the proxy where there are secrets, else the demo.

use crate::support::{FakeFlow, ProxyProcess, SOON, credential, get};

#[test]
fn without_the_default_file_the_demo_runs_after_a_line_that_says_so() {
    let proxy = ProxyProcess::bare().arg("--or-demo").start();
    assert!(
        get(proxy.address(), "/v1/models")
            .text()
            .contains("demo-gpt")
    );
    let line = "No secrets.json here: starting the demo. For the real thing: cp \
                secrets.json.template secrets.json";
    assert_eq!(proxy.stdout().lines().next(), Some(line));
}

#[test]
fn another_file_that_is_missing_is_named() {
    let proxy = ProxyProcess::bare()
        .arg("--or-demo")
        .with_file(".env", "FLOW_PROXY_SECRETS_FILE=mine.json\n")
        .start();
    let line = "No mine.json here: starting the demo. For the real thing: cp \
                secrets.json.template mine.json";
    assert_eq!(proxy.stdout().lines().next(), Some(line));
}

#[test]
fn with_secrets_the_proxy_runs_without_a_word_about_a_demo() {
    let upstream = FakeFlow::start();
    let array = serde_json::json!([credential(2)]).to_string();
    let by_file = ProxyProcess::to(&upstream.url()).arg("--or-demo");
    let by_variable = ProxyProcess::bare()
        .option("--target-url", &upstream.url())
        .arg("--or-demo")
        .env("FLOW_PROXY_SECRETS", &array);
    for (builder, client) in [(by_file, "client-1"), (by_variable, "client-2")] {
        let proxy = builder.start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        assert_eq!(
            upstream.client_ids().last().map(String::as_str),
            Some(client)
        );
        assert_eq!(proxy.stdout(), "");
    }
}

#[test]
fn secrets_that_are_there_and_wrong_are_an_error() {
    let finished = ProxyProcess::bare()
        .arg("--or-demo")
        .with_file("secrets.json", "[]")
        .run_to_end(SOON);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
}
