//! What users see of secrets.json: the commands `token` and `check`. The values that stand for
//! secrets contain `hush`, so that one look at the output tells whether it leaks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::WorkDir;

const GOOD: &str = r#"[
    {"name":"primary-1","clientId":"fake-client-id","clientSecret":"fake-client-secret-for-tests-only","tenant":"fake-tenant"},
    {"clientId":"x","clientSecret":"k","tenant":"z"}
]"#;

/// The tokens of `GOOD`, made with PyJWT 2.15.1.
const FIRST_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6ImZha2UtY2xpZW50LWlkIiwiY2xpZW50U2VjcmV0IjoiZmFrZS1jbGllbnQtc2VjcmV0LWZvci10ZXN0cy1vbmx5IiwidGVuYW50IjoiZmFrZS10ZW5hbnQifQ.gSsBsSIlAGFAJEGjJP5brlpwrc3MRFZly3AIZKoNHX0";
const SECOND_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjbGllbnRJZCI6IngiLCJjbGllbnRTZWNyZXQiOiJrIiwidGVuYW50IjoieiJ9.Ig64FJnN8PmlxVJXBOTgDz_IOaSTCLMTOvXMn3CmfHo";

/// Runs `check` and `token` on a bad file: both must tell all `problems`, exit 2 and leak nothing.
fn assert_rejected(contents: impl AsRef<[u8]>, problems: &[&str]) {
    let dir = WorkDir::with_secrets(contents);
    for command in ["check", "token"] {
        let outcome = dir.run(&[command], &[]);
        assert_eq!(outcome.code, Some(2), "{command}: {}", outcome.output());
        assert!(
            !outcome.output().contains("hush"),
            "{command} leaks: {}",
            outcome.output()
        );
        for problem in problems {
            assert!(
                outcome.output().contains(problem),
                "no {problem:?} in {}",
                outcome.output()
            );
        }
    }
    assert_eq!(
        dir.run(&["token"], &[]).stdout,
        "",
        "token prints a token on stdout, nothing else"
    );
}

#[test]
fn token_prints_the_first_configurations_token_and_nothing_else() {
    let outcome = WorkDir::with_secrets(GOOD).run(&["token"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output());
    assert_eq!(outcome.stdout, format!("{FIRST_TOKEN}\n"));
}

#[test]
fn token_takes_the_name_of_a_configuration() {
    let dir = WorkDir::with_secrets(GOOD);
    assert_eq!(
        dir.run(&["token", "primary-1"], &[]).stdout,
        format!("{FIRST_TOKEN}\n")
    );
    assert_eq!(
        dir.run(&["token", "config-2"], &[]).stdout,
        format!("{SECOND_TOKEN}\n")
    );
}

#[test]
fn token_rejects_a_name_that_is_not_in_the_file() {
    let outcome = WorkDir::with_secrets(GOOD).run(&["token", "no-such-name"], &[]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.output());
    assert_eq!(outcome.stdout, "");
    assert!(
        outcome.output().contains("no-such-name"),
        "{}",
        outcome.output()
    );
}

#[test]
fn token_reads_the_file_that_the_option_names() {
    let dir = WorkDir::with_secrets(GOOD);
    fs::rename(dir.path("secrets.json"), dir.path("other.json")).unwrap();
    let outcome = dir.run(&["token", "--secrets-file", "other.json"], &[]);
    assert_eq!(
        outcome.stdout,
        format!("{FIRST_TOKEN}\n"),
        "{}",
        outcome.output()
    );
}

#[test]
fn check_accepts_a_good_file_and_prints_no_secret() {
    let text = r#"[{"name":"one","clientId":"hush-1","clientSecret":"hush-2","tenant":"hush-3"}]"#;
    let outcome = WorkDir::with_secrets(text).run(&["check"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output());
    for secret in ["hush-1", "hush-2", "eyJ"] {
        assert!(
            !outcome.output().contains(secret),
            "leaks {secret}: {}",
            outcome.output()
        );
    }
    assert!(outcome.output().contains("one"), "{}", outcome.output());
    assert!(!outcome.output().contains("chmod"), "{}", outcome.output());
}

#[test]
fn the_template_passes_check() {
    let outcome =
        WorkDir::with_secrets(include_str!("../../secrets.json.template")).run(&["check"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output());
}

#[test]
fn check_says_chmod_600_for_a_file_that_others_can_read() {
    let dir = WorkDir::with_secrets(GOOD);
    let file = dir.path("secrets.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = dir.run(&["check"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output());
    assert!(
        outcome.output().contains("chmod 600 secrets.json"),
        "{}",
        outcome.output()
    );
}

#[test]
fn a_missing_file_is_met_with_the_hint_to_copy_the_template() {
    let outcome = WorkDir::new().run(&["check"], &[]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.output());
    assert!(
        outcome.output().contains("secrets.json.template"),
        "{}",
        outcome.output()
    );
}

#[test]
fn a_directory_in_the_files_place_is_rejected() {
    let dir = WorkDir::new();
    fs::create_dir(dir.path("secrets.json")).unwrap();
    let outcome = dir.run(&["check"], &[]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.output());
    assert!(
        outcome.output().contains("secrets.json: is a directory"),
        "{}",
        outcome.output()
    );
}

#[test]
fn all_problems_of_the_file_come_at_once_with_entry_and_field() {
    assert_rejected(
        r#"[{"clientId":"hush","clientSecret":"","tenant":17},
            "hush",
            {"clientId":"  ","clientSecret":"hush","name":"","agent":{"hush":"hush"}}]"#,
        &[
            "entry 1: clientSecret is empty or blank",
            "entry 1: tenant must be a string, not a number",
            "entry 2: must be an object, not a string",
            "entry 3: clientId is empty or blank",
            "entry 3: tenant is missing",
            "entry 3: name is empty or blank",
            "entry 3: agent must be a string, not an object",
        ],
    );
}

#[test]
fn a_name_that_holds_the_secret_or_a_token_is_rejected() {
    let told = "entry 2: name holds the clientSecret or a token";
    for name in [
        "hush",
        "primary-hush-hush-hush",
        "eyJhbGciOiJIUzI1NiJ9.hush.hush",
    ] {
        let secret = if name == "hush" {
            "hush"
        } else {
            "hush-hush-hush"
        };
        let fields = r#""clientId":"fake","tenant":"fake""#;
        let good = format!(r#"{{"name":"fake",{fields},"clientSecret":"{secret}"}}"#);
        let bad = format!(r#"{{"name":"{name}",{fields},"clientSecret":"{secret}"}}"#);
        assert_rejected(format!("[{good},{bad}]"), &[told]);
    }
    // A short one may stand there by chance.
    let text = r#"[{"name":"backup","clientId":"a","clientSecret":"k","tenant":"t"}]"#;
    let outcome = WorkDir::with_secrets(text).run(&["check"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output());
}

#[test]
fn a_field_name_that_is_the_secret_is_not_quoted() {
    let text = r#"[{"clientId":"a","clientSecret":"tenunt","tenunt":"t"},
                   {"clientId":"a","clientSecret":"fake","tenent":"t"}]"#;
    let outcome = WorkDir::with_secrets(text).run(&["check"], &[]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.output());
    assert!(!outcome.output().contains("tenunt"), "{}", outcome.output());
    assert!(outcome.output().contains("entry 1: tenant is missing"));
    let hint = "entry 2: tenant is missing; tenent: did you mean tenant?";
    assert!(outcome.output().contains(hint), "{}", outcome.output());
}

#[test]
fn invalid_json_is_told_with_line_and_column() {
    assert_rejected("[\n  {\"clientSecret\": 'hush'}\n]", &["line 2 column 20"]);
    assert_rejected("[{\"clientSecret\":\"hush", &["line 1 column 22"]);
    assert_rejected(b"[\n\"hush\xff\"]", &["not UTF-8", "line 2 column 6"]);
}

#[test]
fn anything_but_a_filled_array_is_rejected() {
    assert_rejected("", &["is empty"]);
    assert_rejected("[]", &["the array is empty"]);
    assert_rejected("{\"hush\":\"hush\"}", &["array of objects, not an object"]);
}
