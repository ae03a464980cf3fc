//! A secret that was pasted into the wrong place is not shown: no message quotes a value that looks like
//! one, nor more than 64 characters of any value.

use std::collections::BTreeSet;

use crate::support::{Finished, WorkDir};

/// What may be pasted, visibly fake. Of each, the part that must not be shown.
const PASTED: [(&str, &str); 5] = [
    (r#"[{"clientId":"hush","clientSecret":"hush"}]"#, "hush"),
    ("clientSecret=hush", "hush"),
    ("CLIENTSECRET hush", "hush"),
    ("eyJhbGciOiJIUzI1NiJ9.hush.hush", "hush"),
    (
        "0123456789012345678901234567890123456789012345678901234567890123hush-and-more",
        "hush",
    ),
];
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY"];

/// Lists the variables of all options, and the others that this program reads.
fn variables() -> BTreeSet<String> {
    let help = WorkDir::new().run(&["--help"], &[]).stdout;
    let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let options = words.filter(|word| word.len() > 11 && word.starts_with("FLOW_PROXY_"));
    let others = ["SSL_CERT_FILE", "FLOW_PROXY_UNKNOWN", "FLOW_PROXY_PROT"];
    let all = options.chain(others).chain(PROXY_VARIABLES);
    all.map(str::to_owned).collect()
}

fn assert_hidden(run: &Finished, part: &str, place: &str) {
    let output = run.output();
    assert!(!output.contains(part), "{place}: {run:?}");
    assert!(run.code.is_some(), "{place}: {run:?}");
}

fn work_dir() -> WorkDir {
    let secrets = r#"[{"clientId":"fake","clientSecret":"fake","tenant":"fake"}]"#;
    WorkDir::with_secrets(secrets)
}

#[test]
fn a_secret_in_the_wrong_variable_is_not_shown() {
    let variables = variables();
    assert!(variables.len() > 20, "{variables:?}");
    for (pasted, part) in PASTED {
        for variable in &variables {
            for command in ["check", "token", "health"] {
                // Nothing listens there.
                let port = ("FLOW_PROXY_PORT", "1");
                let environment = [port, (variable.as_str(), pasted)];
                let run = work_dir().run(&[command], &environment);
                if command == "token" && run.code == Some(0) {
                    continue;
                }
                assert_hidden(&run, part, variable);
            }
            let dir = work_dir();
            dir.write(".env", format!("{variable}='{pasted}'\n"));
            assert_hidden(&dir.run(&["check"], &[]), part, variable);
        }
    }
}

#[test]
fn a_secret_in_the_wrong_argument_is_not_shown() {
    let help = WorkDir::new().run(&["--help"], &[]).stdout;
    let options = help
        .lines()
        .filter_map(|line| line.trim().split(' ').next());
    let options: Vec<&str> = options.filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 15, "{options:?}");
    for (pasted, part) in PASTED {
        let dir = work_dir();
        for option in options.iter().filter(|option| **option != "--help") {
            for given in [vec![*option, pasted], vec![&*format!("{option}={pasted}")]] {
                let args = [&["check"], &given[..]].concat();
                assert_hidden(&dir.run(&args, &[]), part, option);
            }
        }
        for args in [
            &[pasted][..],
            &["check", pasted],
            &["token", pasted],
            &["completions", pasted],
            &[&format!("--{pasted}")],
            &[&format!("-{pasted}")],
        ] {
            assert_hidden(&dir.run(args, &[]), part, &args[0][..1]);
        }
    }
}

#[test]
fn a_target_or_proxy_with_a_long_name_is_cut() {
    let name = format!(
        "{}.hush.example",
        ["a".repeat(32), "b".repeat(32)].join(".")
    );
    let target = format!("http://{name}/x");
    let environment = [("FLOW_PROXY_TARGET_URL", target.as_str())];
    let args = ["check", "--online", "--allow-http-target"];
    assert_hidden(&work_dir().run(&args, &environment), "hush", "target");
    let proxy = format!("http://{name}:1");
    let environment = [("HTTPS_PROXY", proxy.as_str())];
    let check = work_dir().run(&["check"], &environment);
    assert_hidden(&check, "hush", "proxy");
    assert!(
        check.stdout.contains("reached through the proxy a"),
        "{check:?}"
    );
}
