//! What `--help` and `--version` print. Pure.

use std::fmt::Write;

use super::commands::{COMMANDS, FLAGS};
use super::options::OPTIONS;

const USAGE: &str = "\
Reverse proxy for the Flow LLM Proxy: signs every request with the next configuration of
secrets.json, forwards it and streams the response back.

Usage: flow-proxy [COMMAND] [OPTIONS]

Commands:
";

const AFTER_OPTIONS: &str = "
Precedence: command line, environment, .env in the working directory, default.
TIME: seconds, or a number with ms, s, m or h. SIZE: bytes, or a number with K, M or G.
HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured for a target that is not loopback.

Files: secrets.json, flow_proxy_plugin.log, .env (in the working directory)
Signals: INT, TERM stop (twice: at once); HUP loads secrets.json again and reopens the log,
         or stops where the terminal that the proxy was started in is gone; USR1 reopens the log
Exit codes: 0 done, 1 a failure while running, 2 bad usage or bad configuration

Example:
  flow-proxy --port 8899 &
  curl http://127.0.0.1:8899/v1/models
";

/// Returns what `--help` prints: the commands, and every option with its environment variable and
/// default, for a screen of 100 columns. Ends with a line end.
pub fn help() -> String {
    let mut text = format!("{}{USAGE}", version());
    push_command(&mut text, "(none)", "run the proxy");
    for command in COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        push_command(&mut text, usage.trim_end(), command.help);
    }
    text.push_str("\nOptions, environment variables and defaults:\n");
    for option in OPTIONS {
        let usage = format!("--{} {}", option.long, option.value_name);
        let (env, default) = (option.env, option.default_text());
        push_line(&mut text, format_args!("  {usage:<26} {env:<28} {default}"));
        push_line(&mut text, format_args!("      {}", option.help));
    }
    for flag in FLAGS {
        let short = flag
            .short
            .map_or(String::new(), |short| format!(", -{short}"));
        let usage = format!("--{}{short} {}", flag.long, flag.value_name);
        let usage = usage.trim_end();
        push_line(&mut text, format_args!("  {usage:<26} {}", flag.help));
    }
    text.push_str(AFTER_OPTIONS);
    text
}

/// Returns what `--version` prints. Ends with a line end.
pub fn version() -> String {
    concat!("flow-proxy ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

fn push_command(text: &mut String, usage: &str, help: &str) {
    push_line(text, format_args!("  {usage:<26} {help}"));
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_screen_of_100_columns() {
        let text = help();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
            assert_eq!(line.trim_end(), line);
        }
        assert!(text.lines().count() <= 80, "{} lines", text.lines().count());
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    }

    #[test]
    fn help_has_each_option_with_its_variable_and_default_on_one_line() {
        let text = help();
        for option in OPTIONS {
            let start = format!("  --{} {} ", option.long, option.value_name);
            let line = text.lines().find(|line| line.starts_with(&start));
            let words: Vec<&str> = line.expect(&start).split_whitespace().collect();
            assert_eq!(words[2..], [option.env, &option.default_text()]);
            assert!(text.contains(option.help), "{}", option.help);
        }
    }

    #[test]
    fn help_has_each_flag_and_command() {
        let text = help();
        for flag in FLAGS {
            assert!(
                text.contains(&format!("\n  --{}", flag.long)),
                "{}",
                flag.long
            );
        }
        for command in COMMANDS {
            assert!(
                text.contains(&format!("\n  {} ", command.name)),
                "{}",
                command.name
            );
        }
    }

    #[test]
    fn version_names_the_program_and_the_crate_s_version() {
        assert_eq!(
            version(),
            format!("flow-proxy {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}
