//! Variables without a meaning, and values that no message may quote (contract section 2).

use crate::support::{ProxyBuilder, ProxyProcess, SOON};

fn check() -> ProxyBuilder {
    ProxyProcess::to("http://127.0.0.1:9/x").command("check")
}

#[test]
fn a_mistyped_variable_gets_a_warning_with_the_nearest_name() {
    let mistyped = |builder: ProxyBuilder| builder.env("FLOW_PROXY_UPSTREAM_TIMOUT", "1");
    let warning = "FLOW_PROXY_UPSTREAM_TIMOUT: unknown variable, ignored; did you mean \
                   FLOW_PROXY_UPSTREAM_TIMEOUT?";
    let check = mistyped(check()).run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stderr.contains(warning), "{check:?}");
    let proxy = mistyped(ProxyProcess::to("http://127.0.0.1:9/x")).start();
    assert!(proxy.wait_for_log(warning).contains(" - WARNING - "));
}

#[test]
fn variables_of_scripts_clients_and_kubernetes_get_none() {
    let names = [
        "FLOW_PROXY_KEY",
        "FLOW_PROXY_DIR",
        "FLOW_PROXY_BIN",
        "FLOW_PROXY_KEEP_PAUSE",
        "FLOW_PROXY_UID",
        "FLOW_PROXY_GID",
        "FLOW_PROXY_SERVICE_HOST",
        "FLOW_PROXY_SERVICE_PORT",
        "FLOW_PROXY_SERVICE_PORT_HTTP",
        "FLOW_PROXY_PORT_8899_TCP",
        "FLOW_PROXY_PORT_8899_TCP_PROTO",
        "FLOW_PROXY_PORT_8899_TCP_PORT",
        "FLOW_PROXY_PORT_8899_TCP_ADDR",
    ];
    let check = names
        .iter()
        .fold(check(), |builder, name| builder.env(name, "x"));
    let check = check.run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(!check.stderr.contains("FLOW_PROXY_"), "{check:?}");
}

#[test]
fn no_message_quotes_a_value_that_may_be_a_secret_or_is_long() {
    let long = format!("{}hush", "x".repeat(65));
    let values = [
        r#"[{"clientId":"hush"}]"#,
        "clientSecret=hush",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.hush",
        &long,
    ];
    for value in values {
        for name in [
            "FLOW_PROXY_PORT",
            "FLOW_PROXY_HOST",
            "FLOW_PROXY_LOG_LEVEL",
            "FLOW_PROXY_TARGET_URL",
            "FLOW_PROXY_SECRETS_FILE",
            "FLOW_PROXY_CA_FILE",
            "FLOW_PROXY_ALLOW_HTTP_TARGET",
            "SSL_CERT_FILE",
        ] {
            let builder = ProxyProcess::bare().without_port().env(name, value);
            let run = builder.command("token").run_to_end(SOON);
            assert!(!run.stderr.contains("hush"), "{name}: {run:?}");
        }
        let start = ProxyProcess::to("http://127.0.0.1:9/x")
            .option("--log-file", &format!("no-such-directory/{value}"))
            .run_to_end(SOON);
        assert_eq!(start.code, Some(2), "{start:?}");
        assert!(!start.stderr.contains("hush"), "{start:?}");
        let token = ProxyProcess::to("http://127.0.0.1:9/x").command("token");
        let token = token.arg(value).run_to_end(SOON);
        assert_eq!(token.code, Some(2), "{token:?}");
        assert!(!token.stderr.contains("hush"), "{token:?}");
        for name in ["--ca-file", "--secrets-file"] {
            let check = check().option(name, value).run_to_end(SOON);
            assert_eq!(check.code, Some(2), "{check:?}");
            assert!(!check.stderr.contains("hush"), "{check:?}");
        }
    }
}

#[test]
fn secrets_in_the_wrong_variable_are_never_shown() {
    let array = r#"[{"clientId":"hush","clientSecret":"hush","tenant":"hush"}]"#;
    let check = check()
        .env("FLOW_PROXY_SECRETS_FILE", array)
        .run_to_end(SOON);
    assert_eq!(check.code, Some(2), "{check:?}");
    assert!(!format!("{check:?}").contains("hush"), "{check:?}");
    assert!(check.stderr.contains("FLOW_PROXY_SECRETS "), "{check:?}");
}
