use super::*;

#[test]
fn ports_are_digits_up_to_65535() {
    assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
    for bad in [
        "abc",
        "",
        "-1",
        "+1",
        "65536",
        "1.0",
        " 1",
        "99999999999999999999",
    ] {
        assert_eq!(
            port(bad),
            Err(format!("'{bad}' is not a port (0 to 65535)"))
        );
    }
}

#[test]
fn a_port_that_kubernetes_made_is_explained() {
    let error = port("tcp://10.0.0.1:8899").unwrap_err();
    assert!(error.contains("enableServiceLinks"), "{error}");
}

#[test]
fn a_bad_host_is_told_what_is_allowed() {
    let error = host("example.com").unwrap_err();
    assert!(
        error.starts_with("'example.com' is not an IP address"),
        "{error}"
    );
}

#[test]
fn booleans_are_true_or_false_in_any_case() {
    assert_eq!((boolean("true"), boolean("False")), (Ok(true), Ok(false)));
    for bad in ["1", "yes", "", " true"] {
        let error = format!("'{bad}' is neither true nor false");
        assert_eq!(boolean(bad), Err(error));
    }
}

#[test]
fn no_log_file_is_called_none_or_a_dash() {
    assert_eq!((log_file("none"), log_file("-")), (Ok(None), Ok(None)));
    let named = log_file("./none").unwrap().unwrap();
    assert!(named.is_required);
}

#[test]
fn levels_are_read_in_any_case_and_shown_as_the_log_shows_them() {
    for (text, shown) in [
        ("debug", "DEBUG"),
        ("Warn", "WARNING"),
        ("warning", "WARNING"),
    ] {
        assert_eq!(show_level(level(text).unwrap()), shown);
    }
    for name in LEVELS {
        assert_eq!(show_level(level(name).unwrap()), name);
    }
    let error = level("loud").unwrap_err();
    assert_eq!(
        error,
        "'loud' is not a log level (DEBUG, INFO, WARNING or ERROR)"
    );
}

#[test]
fn workers_are_1_to_16384() {
    assert_eq!((workers("1"), workers("16384")), (Ok(1), Ok(16384)));
    for bad in ["0", "16385", "many", "-3"] {
        let error = format!("'{bad}' is not a number of workers (1 to 16384)");
        assert_eq!(workers(bad), Err(error));
    }
}

#[test]
fn timeouts_are_seconds_or_have_a_unit() {
    for (text, millis) in [
        ("600", 600_000),
        ("600s", 600_000),
        ("600 s", 600_000),
        ("10m", 600_000),
        ("2H", 7_200_000),
        ("500ms", 500),
        ("168h", 604_800_000),
    ] {
        assert_eq!(timeout(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for bad in [
        "0",
        "0ms",
        "169h",
        "1.5",
        "-1",
        "s",
        "1d",
        "18446744073709551615h",
    ] {
        let error = timeout(bad).unwrap_err();
        assert!(
            error.starts_with(&format!("'{bad}' is not a timeout")),
            "{error}"
        );
    }
}

#[test]
fn only_the_shutdown_timeout_may_be_0() {
    assert_eq!(timeout_or_zero("0"), Ok(Duration::ZERO));
    assert!(timeout("0").is_err());
}

#[test]
fn sizes_have_binary_units_and_0_is_no_limit() {
    for (text, bytes) in [
        ("1", 1),
        ("2k", 2 << 10),
        ("2KiB", 2 << 10),
        ("100M", 100 << 20),
        ("100 MiB", 100 << 20),
        ("3gib", 3 << 30),
    ] {
        assert_eq!(size(text), Ok(Some(bytes)), "{text}");
    }
    assert_eq!((size("0"), size("0M")), (Ok(None), Ok(None)));
    for bad in ["", "M", "1MB", "1T", "-1", "1.5M", "99999999999G"] {
        let error = size(bad).unwrap_err();
        assert!(
            error.starts_with(&format!("'{bad}' is not a size")),
            "{error}"
        );
    }
}

#[test]
fn a_full_log_file_has_some_lines_and_0_is_no_limit() {
    assert_eq!((log_size("0"), log_size("4k")), (Ok(None), Ok(Some(4096))));
    assert_eq!(
        log_size("32").unwrap_err(),
        "'32' is too small for a log file (4KiB or more; 0 = no limit)"
    );
    assert!(log_size("32MB").unwrap_err().contains("is not a size"));
    assert_eq!((log_keep("0"), log_keep("1000")), (Ok(0), Ok(1000)));
    for bad in ["1001", "-1", "", "7M", "99999999999999999999"] {
        assert_eq!(
            log_keep(bad).unwrap_err(),
            format!("'{bad}' is not a number of log files (0 to 1000)")
        );
    }
}

#[test]
fn what_is_shown_is_read_back_as_the_same() {
    for bytes in [
        None,
        Some(1),
        Some(1000),
        Some(5 << 10),
        Some(100 << 20),
        Some(7 << 30),
    ] {
        assert_eq!(size(&show_size(bytes)), Ok(bytes));
    }
    for millis in [1, 999, 1000, 1500, 3_600_000] {
        let duration = Duration::from_millis(millis);
        assert_eq!(timeout(&show_duration(duration)), Ok(duration));
    }
}
