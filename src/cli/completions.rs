//! Completions for bash, zsh and fish, from the tables of options and commands. Pure.

use super::commands::{COMMANDS, FLAGS, Shell};
use super::options::{Complete, OPTIONS};

/// Returns the script that makes `shell` complete the command line. Ends with a line end.
pub fn completions(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// Uses only what bash 3.2 has, which macOS ships, and not the bash-completion package.
fn bash() -> String {
    let mut cases = String::new();
    for (long, complete) in long_names_with_values() {
        let replies = match complete {
            Complete::Nothing => "COMPREPLY=()".to_owned(),
            Complete::Files => "compopt -o filenames 2>/dev/null; local IFS=$'\\n'; \
                                COMPREPLY=($(compgen -f -- \"$cur\"))"
                .to_owned(),
            Complete::Words(words) => bash_words(&words.join(" ")),
        };
        cases.push_str(&format!("        --{long}) {replies}; return ;;\n"));
    }
    let shells = bash_words(&Shell::names(" "));
    let commands: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let options: Vec<String> = long_names().map(|name| format!("--{name}")).collect();
    format!(
        r#"# bash completion for flow-proxy: source <(flow-proxy completions bash)
_flow_proxy() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} word words
    # bash takes --option=value apart at the equals sign.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $prev in
{cases}        completions) {shells}; return ;;
    esac
    words="{commands} {options}"
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            {patterns}) words="{options}" ;;
        esac
    done
    {replies}
}}
complete -F _flow_proxy flow-proxy
"#,
        commands = commands.join(" "),
        options = options.join(" "),
        patterns = commands.join("|"),
        replies = bash_words("$words"),
    )
}

fn bash_words(words: &str) -> String {
    format!("COMPREPLY=($(compgen -W \"{words}\" -- \"$cur\"))")
}

fn zsh() -> String {
    let mut arguments = String::new();
    for option in OPTIONS {
        let action = zsh_action(option.complete);
        let (long, help, name) = (option.long, zsh_escaped(option.help), option.value_name);
        // A value that may be left out stands behind an equals sign only.
        let (equals, colon) = if option.bare.is_some() {
            ("=-", "::")
        } else {
            ("=", ":")
        };
        let name = name.trim_matches(['[', ']']);
        arguments.push_str(&format!(
            "        '--{long}{equals}[{help}]{colon}{name}:{action}' \\\n"
        ));
    }
    arguments += &zsh_flags();
    let commands: String = COMMANDS
        .iter()
        .map(|command| format!("        '{}:{}'\n", command.name, zsh_escaped(command.help)))
        .collect();
    format!(
        r#"#compdef flow-proxy
# zsh completion for flow-proxy: flow-proxy completions zsh > "${{fpath[1]}}/_flow-proxy"
_flow_proxy() {{
    local context state state_descr line
    typeset -A opt_args
    local -a commands
    commands=(
{commands}    )
    _arguments -S \
{arguments}        '1:command:->command' \
        '2:argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument) [[ $line[1] == completions ]] && compadd {shells} ;;
    esac
}}
if [[ $funcstack[1] == _flow-proxy ]]; then
    _flow_proxy "$@"
else
    compdef _flow_proxy flow-proxy
fi
"#,
        shells = Shell::names(" "),
    )
}

fn zsh_flags() -> String {
    let mut arguments = String::new();
    for flag in FLAGS {
        let help = zsh_escaped(flag.help);
        if let Some(short) = flag.short {
            arguments.push_str(&format!("        '-{short}[{help}]' \\\n"));
        }
        let long = flag.long;
        let value = match flag.value_name {
            "" => String::new(),
            name => format!(":{name}:{}", zsh_action(flag.complete)),
        };
        // A flag with a value may be repeated.
        let (repeated, equals) = if value.is_empty() {
            ("", "")
        } else {
            ("*", "=")
        };
        arguments.push_str(&format!(
            "        '{repeated}--{long}{equals}[{help}]{value}' \\\n"
        ));
    }
    arguments
}

fn zsh_action(complete: Complete) -> String {
    match complete {
        Complete::Nothing => String::new(),
        Complete::Files => "_files".to_owned(),
        // A colon separates the parts of an action.
        Complete::Words(words) => format!("({})", words.join(" ").replace(':', "\\:")),
    }
}

/// Escapes `text` for a single-quoted description of `_arguments` or `_describe`.
fn zsh_escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:")
        .replace('\'', "'\\''")
}

fn fish() -> String {
    let mut text = String::from(
        "# fish completion for flow-proxy: flow-proxy completions fish | source\n\
         complete -c flow-proxy -f\n",
    );
    for command in COMMANDS {
        let (name, help) = (command.name, fish_escaped(command.help));
        text.push_str(&format!(
            "complete -c flow-proxy -n __fish_use_subcommand -a {name} -d '{help}'\n"
        ));
    }
    let shells = Shell::names(" ");
    text.push_str(&format!(
        "complete -c flow-proxy -n '__fish_seen_subcommand_from completions' -a '{shells}'\n"
    ));
    for option in OPTIONS {
        let value = match option.complete {
            // Without -x the value may be left out.
            Complete::Words(words) if option.bare.is_some() => {
                format!("-a '{}'", words.join(" "))
            }
            other => fish_value(other),
        };
        let (long, help) = (option.long, fish_escaped(option.help));
        text.push_str(&format!(
            "complete -c flow-proxy -l {long} {value} -d '{help}'\n"
        ));
    }
    for flag in FLAGS {
        let short = flag
            .short
            .map_or(String::new(), |short| format!("-s {short} "));
        let value = match flag.value_name {
            "" => String::new(),
            _ => fish_value(flag.complete) + " ",
        };
        let (long, help) = (flag.long, fish_escaped(flag.help));
        text.push_str(&format!(
            "complete -c flow-proxy {short}-l {long} {value}-d '{help}'\n"
        ));
    }
    text
}

fn fish_value(complete: Complete) -> String {
    match complete {
        Complete::Nothing => "-x".to_owned(),
        Complete::Files => "-r -F".to_owned(),
        Complete::Words(words) => format!("-x -a '{}'", words.join(" ")),
    }
}

/// Escapes `text` for a single-quoted string.
fn fish_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn long_names() -> impl Iterator<Item = &'static str> {
    let options = OPTIONS.iter().map(|option| option.long);
    options.chain(FLAGS.iter().map(|flag| flag.long))
}

/// The options and flags that take a value, with what shells offer for it.
fn long_names_with_values() -> impl Iterator<Item = (&'static str, Complete)> {
    let options = OPTIONS.iter().map(|option| (option.long, option.complete));
    let flags = FLAGS.iter().filter(|flag| !flag.value_name.is_empty());
    options.chain(flags.map(|flag| (flag.long, flag.complete)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_s_script_has_every_option_and_command() {
        for shell in Shell::ALL {
            let script = completions(shell);
            for name in long_names() {
                let spelling = match shell {
                    Shell::Bash | Shell::Zsh => format!("--{name}"),
                    Shell::Fish => format!("-l {name} "),
                };
                assert!(script.contains(&spelling), "{shell:?} lacks {name}");
            }
            for command in COMMANDS {
                assert!(
                    script.contains(command.name),
                    "{shell:?} lacks {}",
                    command.name
                );
            }
        }
    }
}
