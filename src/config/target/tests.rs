use super::*;

fn parsed(url: &str) -> Target {
    Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn rejection(url: &str) -> String {
    match Target::parse(url) {
        Ok(target) => panic!("{url} was taken for {target:?}"),
        Err(error) => error,
    }
}

#[test]
fn a_target_url_is_split_into_its_parts() {
    let target = parsed("https://flow.ciandt.com/flow-llm-proxy");
    let expected = Target {
        https: true,
        authority: "flow.ciandt.com".to_owned(),
        host: "flow.ciandt.com".to_owned(),
        port: 443,
        base_path: "/flow-llm-proxy".to_owned(),
    };
    assert_eq!(target, expected);
    assert_eq!(target.to_string(), "https://flow.ciandt.com/flow-llm-proxy");
}

#[test]
fn scheme_and_host_are_case_insensitive_and_the_path_is_not() {
    let target = parsed("HTTPS://Example.COM/Base");
    assert_eq!(target.to_string(), "https://example.com/Base");
}

#[test]
fn trailing_slashes_are_removed() {
    assert_eq!(parsed("https://example.com/").base_path, "");
    assert_eq!(parsed("https://example.com").base_path, "");
    assert_eq!(parsed("https://example.com/a/b//").base_path, "/a/b");
}

#[test]
fn the_default_port_is_left_out_of_the_authority_and_others_are_not() {
    assert_eq!(parsed("https://example.com:443/x").authority, "example.com");
    assert_eq!(parsed("http://localhost:80").authority, "localhost");
    let other = parsed("https://example.com:8443");
    assert_eq!(
        (other.authority.as_str(), other.port),
        ("example.com:8443", 8443)
    );
    assert_eq!(parsed("http://localhost:443").authority, "localhost:443");
}

#[test]
fn ipv6_has_brackets_in_the_authority_only() {
    let target = parsed("http://[0:0::1]:8080/x");
    assert_eq!((target.host.as_str(), target.port), ("::1", 8080));
    assert_eq!(target.to_string(), "http://[::1]:8080/x");
}

#[test]
fn http_is_for_loopback_hosts_alone() {
    for url in [
        "http://localhost:1",
        "http://flow.localhost",
        "http://127.0.0.1:9/x",
        "http://127.255.0.3",
        "http://[::1]",
        "https://example.com",
    ] {
        assert!(!parsed(url).sends_in_clear(), "{url}");
    }
    for url in [
        "http://example.com",
        "http://notlocalhost",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[::ffff:127.0.0.1]",
    ] {
        let target = parsed(url);
        assert!(target.sends_in_clear(), "{url}");
        let problem = target.clear_text_problem();
        assert!(problem.contains("clear text"), "{problem}");
        assert!(problem.contains(url), "{problem}");
    }
}

#[test]
fn what_may_hold_a_secret_and_what_is_long_is_not_quoted() {
    for url in [r#"[{"clientSecret":"hush"}]"#, "ftp://x/eyJhush"] {
        let error = rejection(url);
        assert!(!error.contains("hush"), "{error}");
    }
    let error = rejection(&format!("ftp://{}hush", "x".repeat(64)));
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn userinfo_is_rejected_and_never_quoted() {
    for url in [
        "https://bob:hunter2@example.com/x",
        "bob:hunter2@example.com",
        "ftp://bob:hunter2@example.com",
        "https://exa mple.com/bob:hunter2@x?",
    ] {
        let error = rejection(url);
        assert!(
            !error.contains("hunter2") && !error.contains("bob"),
            "{error}"
        );
        assert!(error.contains(ALLOWED), "{error}");
    }
}

#[test]
fn queries_and_fragments_are_rejected_and_never_quoted() {
    for url in [
        "https://example.com/x?key=hunter2",
        "https://example.com#hunter2",
    ] {
        let error = rejection(url);
        assert!(error.starts_with("'https://example.com"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn dot_segments_are_rejected_in_every_spelling() {
    for path in [
        "/..",
        "/a/../b",
        "/./a",
        "/%2e%2E/a",
        "/a/.%2e",
        "/a%2f..",
        "/a%5C..%5c",
    ] {
        let error = rejection(&format!("https://example.com{path}"));
        assert!(error.contains("dot segment"), "{path}: {error}");
    }
    assert_eq!(
        parsed("https://example.com/.well-known/a..b").base_path,
        "/.well-known/a..b"
    );
}

#[test]
fn malformed_urls_are_rejected_on_one_line_with_what_is_allowed() {
    for url in [
        "",
        "example.com",
        "//example.com",
        "ftp://example.com",
        "https:/example.com",
        "https://",
        "https:///path",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:+80",
        "https://example.com:65536",
        "https://::1/",
        "https://[::1",
        "https://[::1]x",
        "https://[fe80::1%eth0]",
        "https://[example]",
        "https://a..b",
        "https://example.com.",
        "https://exam ple.com",
        "https://127.1",
        "https://2130706433",
        "https://0x7f.0x1",
        "https://bücher.example",
        "https://example.com/a b",
        "https://example.com/a\nb",
        "https://example.com\\x",
        "https://example.com/%2",
        "https://example.com/%zz",
        " https://example.com",
    ] {
        let error = rejection(url);
        assert!(error.contains(ALLOWED), "{url}: {error}");
        assert!(!error.contains('\n'), "{url}: {error}");
    }
}

#[test]
fn what_is_displayed_parses_to_the_same() {
    for url in [
        "https://a.example:8443/b%20c",
        "http://[::1]:80/",
        "http://127.0.0.1:1/x/",
    ] {
        let target = parsed(url);
        assert_eq!(parsed(&target.to_string()), target);
    }
}
