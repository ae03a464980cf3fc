//! Tests of the format. Every value that stands for a secret contains `hush`, so that a leak shows in
//! the text of an error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

/// Reads to the end, as the start does.
fn load(source: &SecretsSource) -> Result<Loaded, SecretsErrors> {
    super::load(source, Pipes::Wait)
}

const GOOD: &str = r#"{"clientId":"hush-id","clientSecret":"hush-secret","tenant":"hush-tenant"}"#;

/// Returns the problems of a text that must be rejected, and asserts that they leak nothing.
fn problems(text: impl AsRef<[u8]>) -> Vec<String> {
    let error = parse(text.as_ref()).expect_err("the text should be rejected");
    assert!(
        !format!("{error} {error:?}").contains("hush"),
        "leaks a value: {error}"
    );
    error.problems().to_vec()
}

fn configurations(text: &str) -> Vec<Configuration> {
    parse(text.as_bytes()).unwrap().0
}

fn names(text: &str) -> Vec<String> {
    configurations(text)
        .iter()
        .map(|c| c.name.to_string())
        .collect()
}

/// A file for one test, removed with its directory when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(test: &str, contents: &[u8], mode: u32) -> Self {
        let directory = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("secrets.json");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn source(path: &Path) -> SecretsSource {
    SecretsSource::File(path.to_owned())
}

fn warnings(text: &str) -> Vec<String> {
    parse(text.as_bytes()).unwrap().1
}

#[test]
fn the_template_is_accepted_with_a_warning_for_each_value() {
    let template = include_str!("../../../secrets.json.template");
    assert_eq!(names(template), ["primary-1", "primary-2"]);
    let found = warnings(template);
    assert_eq!(found.len(), 6, "{found:?}");
    for (line, field) in found.iter().zip(["clientId", "clientSecret", "tenant"]) {
        assert_eq!(
            *line,
            format!("entry 1: {field} is still the template's: put your own in")
        );
    }
}

#[test]
fn blanks_and_line_ends_at_the_edges_get_a_warning() {
    for edge in [" hush", "hush ", "hush\\n", "\\r\\nhush", "\u{a0}hush"] {
        let text = GOOD.replace("hush-secret", edge);
        let found = warnings(&format!("[{GOOD},{text}]"));
        let start = "entry 2: clientSecret begins or ends with a blank";
        assert_eq!(found.len(), 1, "{edge:?}: {found:?}");
        assert!(found[0].starts_with(start), "{found:?}");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
    assert_eq!(
        warnings(&format!("[{}]", GOOD.replace("hush-id", "a b"))),
        [""; 0]
    );
}

#[test]
fn a_missing_field_names_the_one_that_was_probably_meant() {
    let named = |from: &str, to: &str| problems(format!("[{}]", GOOD.replace(from, to)));
    for (from, to) in [
        ("clientId", "client_id"),
        ("clientId", "clientid"),
        ("clientSecret", "secret"),
        ("clientSecret", "client secret"),
        ("tenant", "tennant"),
    ] {
        let expected = format!("entry 1: {from} is missing; {to}: did you mean {from}?");
        assert_eq!(named(from, to), [expected]);
    }
    for far in ["hushes", "client\\nid", "tenants-hush-hush"] {
        let field = if far.starts_with('c') {
            "clientId"
        } else {
            "tenant"
        };
        assert_eq!(named(field, far), [format!("entry 1: {field} is missing")]);
    }
}

#[test]
fn an_array_in_a_variable_is_read_and_named_and_its_debug_output_is_redacted() {
    let array = |text: &str| SecretsArray::new("VARIABLE".to_owned(), OsStr::new(text));
    let good = SecretsSource::Array(array(&format!("[{GOOD}]")));
    let loaded = load(&good).unwrap();
    assert_eq!(loaded.configurations.len(), 1);
    assert!(!loaded.is_watchable);
    assert!(!format!("{good:?}").contains("hush"));
    let error = load(&SecretsSource::Array(array("hush"))).unwrap_err();
    assert!(
        error.problems()[0].starts_with("VARIABLE: is not valid JSON"),
        "{error}"
    );
}

#[test]
fn only_a_regular_file_is_read_again() {
    let error = load_again(Path::new("/dev/null"), None).unwrap_err();
    assert!(error.to_string().contains("is no regular file"), "{error}");
    let file = TempFile::new("again", format!("[{GOOD}]").as_bytes(), 0o600);
    assert!(load_again(&file.0, None).unwrap().is_watchable);
}

#[test]
fn an_entry_without_a_name_is_called_after_its_place() {
    let named = GOOD.replace("{\"", "{\"name\":\"first\",\"");
    assert_eq!(names(&format!("[{named},{GOOD}]")), ["first", "config-2"]);
}

#[test]
fn entries_of_one_identity_share_one_credential() {
    let other_tenant = GOOD.replace("hush-tenant", "hush-other");
    let named = GOOD.replace("{\"", "{\"name\":\"again\",\"");
    let list = configurations(&format!("[{GOOD},{other_tenant},{named}]"));
    assert!(Arc::ptr_eq(&list[0].credential, &list[2].credential));
    assert_ne!(list[0].credential, list[1].credential);
}

#[test]
fn the_authorization_value_is_the_token() {
    let configuration = &configurations(&format!("[{GOOD}]"))[0];
    let authorization = configuration.credential.authorization();
    let claims = Claims {
        client_id: "hush-id",
        client_secret: "hush-secret",
        tenant: "hush-tenant",
    };
    assert_eq!(configuration.token(), *jwt::sign_hs256("", claims));
    assert_eq!(*authorization, *format!("Bearer {}", configuration.token()));
}

#[test]
fn debug_output_redacts_every_secret() {
    let list = configurations(&format!("[{GOOD}]"));
    let shown = format!(
        "{:?} {:?} {:?}",
        list,
        list[0].credential.client_id,
        Secret::new("hush")
    );
    assert!(!shown.contains("hush"), "{shown}");
    assert!(!shown.contains(list[0].token()), "{shown}");
    assert!(shown.contains("[redacted]"), "{shown}");
}

#[test]
fn all_problems_of_all_entries_are_reported_at_once() {
    let text = r#"[
        {"clientId":"hush", "clientSecret":"", "tenant":17, "name":" "},
        "hush",
        {"clientId":" \t\n", "tenant":["hush"], "agent":{"hush":1}, "appToAccess":null},
        {"clientId":"hush","clientSecret":"hush","tenant":false,"clientId":"hush"}]"#;
    assert_eq!(
        problems(text),
        [
            "entry 1: name is empty or blank",
            "entry 1: clientSecret is empty or blank",
            "entry 1: tenant must be a string, not a number",
            "entry 2: must be an object, not a string",
            "entry 3: clientId is empty or blank",
            "entry 3: clientSecret is missing",
            "entry 3: tenant must be a string, not an array",
            "entry 3: agent must be a string, not an object",
            "entry 3: appToAccess must be a string, not null",
            "entry 4: clientId is given more than once",
            "entry 4: tenant must be a string, not a boolean",
        ]
    );
}

#[test]
fn anything_but_a_filled_array_is_rejected() {
    for (text, problem) in [
        (
            "{\"hush\":1}",
            "must hold a JSON array of objects, not an object",
        ),
        (
            "\"hush\"",
            "must hold a JSON array of objects, not a string",
        ),
        (
            "[]",
            "the array is empty: at least one configuration is needed",
        ),
        (" \n", "is empty: it must hold a JSON array of objects"),
    ] {
        assert_eq!(problems(text), [problem]);
    }
}

#[test]
fn broken_json_is_located_and_never_quoted() {
    let deep = format!("{}\"hush\"", "[".repeat(200));
    for text in [
        "[{\"clientSecret\":\"hush",
        "[{\"clientSecret\": hush}]",
        "[{\"clientSecret\": 'hush'}]",
        "[{\"hush\"}]",
        "[{hush:1}]",
        "[1e999, \"hush\"]",
        "[{\"clientSecret\":\"hush\\q\"}]",
        "[{\"clientSecret\":\"hush\\ud800\"}]",
        "[{\"clientSecret\":\"hush\ttab\"}]",
        "[\"hush\",]",
        "[] hush",
        &deep,
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("is not valid JSON: "),
            "{problems:?}"
        );
        assert!(problems[0].contains(" at line 1 column "), "{problems:?}");
    }
    assert_eq!(
        problems("[\n  {\"tenant\":\n  hush}\n]"),
        ["is not valid JSON: expected value at line 3 column 3"]
    );
}

#[test]
fn bytes_that_are_not_utf8_are_located() {
    assert_eq!(
        problems(b"[\n \"hush\xff\"]"),
        ["is not UTF-8 at line 2 column 7: save it with that encoding"]
    );
    let utf16: Vec<u8> = "\u{feff}[\"hush\"]"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(problems(utf16)[0].starts_with("is not UTF-8 at line 1 column 1"));
}

#[test]
fn a_byte_order_mark_and_unknown_fields_are_ignored() {
    let text = format!(
        "\u{feff}[{}]",
        GOOD.replace("{\"", "{\"x\":[1],\"x\":null,\"")
    );
    assert_eq!(names(&text), ["config-1"]);
}

#[test]
fn empty_optional_fields_are_accepted() {
    let text = format!(
        "[{}]",
        GOOD.replace("{\"", "{\"agent\":\"\",\"appToAccess\":\" \",\"")
    );
    assert_eq!(names(&text), ["config-1"]);
}

#[test]
fn a_name_that_would_break_a_log_line_is_rejected() {
    let named = |name: &str| format!("[{}]", GOOD.replace("{\"", &format!("{{{name},\"")));
    for name in [
        r"a'b",
        r#"a\"b"#,
        r"a\nb",
        r"a\u001b[31m",
        r"a\u0085b",
        r"a\u2028b",
    ] {
        assert_eq!(
            problems(named(&format!("\"name\":\"{name}\""))),
            ["entry 1: name must hold no quotes and no control characters"]
        );
    }
    let longest = "\u{e9}".repeat(100);
    assert_eq!(
        names(&named(&format!("\"name\":\"{longest}\""))),
        [longest.as_str()]
    );
    assert_eq!(
        problems(named(&format!("\"name\":\"{longest}x\""))),
        ["entry 1: name is longer than 100 characters"]
    );
}

#[test]
fn a_name_of_two_credentials_gets_a_warning_and_a_weight_does_not() {
    let named = GOOD.replace("{\"", "{\"name\":\"twin\",\"");
    let weight = TempFile::new("weight", format!("[{named},{named}]").as_bytes(), 0o600);
    assert_eq!(load(&source(&weight.0)).unwrap().warnings, [""; 0]);

    let other = named.replace("hush-id", "hush-other");
    let twins = TempFile::new("twins", format!("[{named},{other}]").as_bytes(), 0o600);
    let warnings = load(&source(&twins.0)).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("2 different credentials are called 'twin'"),
        "{warnings:?}"
    );
}

#[test]
fn a_file_that_other_users_can_read_gets_a_warning() {
    for mode in [0o640, 0o604] {
        let file = TempFile::new(
            &format!("mode-{mode:o}"),
            format!("[{GOOD}]").as_bytes(),
            mode,
        );
        let warnings = load(&source(&file.0)).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].ends_with(&format!("chmod 600 {}", file.0.display())));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
    let problem = |path: &Path| load(&source(path)).unwrap_err().to_string();
    let missing = std::env::temp_dir().join("flow-proxy-no-such-directory/secrets.json");
    assert!(problem(&missing).contains("Copy secrets.json.template to"));
    assert!(problem(&std::env::temp_dir()).ends_with("is a directory, not a file"));
    assert!(problem(Path::new("/dev/zero")).ends_with("is larger than 1 MiB"));
}

#[test]
fn every_problem_of_a_file_begins_with_its_path() {
    let file = TempFile::new("prefix", b"[{\"tenant\":\"hush\"}]", 0o600);
    let error = load(&source(&file.0)).unwrap_err();
    assert_eq!(error.problems().len(), 2);
    for problem in error.problems() {
        assert!(problem.starts_with(&format!("{}: entry 1: client", file.0.display())));
    }
    assert_eq!(error.to_string().lines().count(), 2);
}
