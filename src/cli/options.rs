//! The one table of options that take a value. Parsing, environment, `--help`, completions and hints
//! all read it. To add an option, add a row here and a field with its default to [`Options`]. Pure.

use super::values;
use crate::config::address::Block;
use crate::config::options::Options;
use crate::config::secrets::SecretsSource;
use crate::config::target::Target;

/// What the name of every variable of this program begins with.
pub(super) const PREFIX: &str = "FLOW_PROXY_";

/// The options that hold a list: they may be repeated.
pub(super) const LISTS: [&str; 3] = ["allow-host", "allow-origin", "admin-from"];

/// The variables that count in the environment only: a `.env` file that came with a directory must not
/// make the secrets travel in clear text.
pub(super) const NEVER_IN_DOTENV: [&str; 1] = ["FLOW_PROXY_ALLOW_HTTP_TARGET"];

/// The option that names the secrets file.
pub(super) const SECRETS_FILE: &str = "secrets-file";

/// The options by which a `.env` file could hand out the secrets and prompts, let others in or write where
/// it likes. Those whose names begin with `allow-` are among them.
const TRUSTED: [&str; 6] = [
    "host",
    SECRETS_FILE,
    "log-file",
    "target-url",
    "ca-file",
    "admin-from",
];

/// An option that takes a value.
pub(super) struct OptionSpec {
    /// The name without its two dashes.
    pub(super) long: &'static str,
    /// The environment variable that sets it.
    pub(super) env: &'static str,
    /// What its value is called in the help; in brackets where it may be left out.
    pub(super) value_name: &'static str,
    /// The value that the option means on the command line without one; `None` where it needs one.
    pub(super) bare: Option<&'static str>,
    /// Its line of help.
    pub(super) help: &'static str,
    /// What shells offer for its value.
    pub(super) complete: Complete,
    /// Reads a value, which is not empty. The error quotes it and says what is allowed.
    pub(super) set: fn(&mut Options, &str) -> Result<(), String>,
    /// Writes the value in force as `set` reads it; `none` where it has no value.
    pub(super) show: fn(&Options) -> String,
}

impl OptionSpec {
    /// Whether the option may stand in a `.env` file only where the secrets come from its directory.
    pub(super) fn needs_trust(&self) -> bool {
        TRUSTED.contains(&self.long) || self.long.starts_with("allow-")
    }

    /// Returns the default as the help shows it.
    pub(super) fn default_text(&self) -> String {
        (self.show)(&Options::default())
    }
}

/// What shells offer for the value of an option.
#[derive(Clone, Copy)]
pub(super) enum Complete {
    Nothing,
    Files,
    Words(&'static [&'static str]),
}

/// All options that take a value, in the order of the help.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        long: "port",
        env: "FLOW_PROXY_PORT",
        value_name: "PORT",
        bare: None,
        help: "port to listen on; 0 = any free port",
        complete: Complete::Nothing,
        set: |options, text| values::port(text).map(|port| options.port = port),
        show: |options| options.port.to_string(),
    },
    OptionSpec {
        long: "host",
        env: "FLOW_PROXY_HOST",
        value_name: "ADDRESS",
        bare: None,
        help: "address to listen on; localhost = 127.0.0.1 and ::1; any but loopback is open to the network",
        complete: Complete::Words(&["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"]),
        set: |options, text| values::host(text).map(|host| options.host = host),
        show: |options| options.host.to_string(),
    },
    OptionSpec {
        long: "log-level",
        env: "FLOW_PROXY_LOG_LEVEL",
        value_name: "LEVEL",
        bare: None,
        help: "minimum level to log: DEBUG, INFO, WARNING or ERROR",
        complete: Complete::Words(&values::LEVELS),
        set: |options, text| values::level(text).map(|level| options.log_level = level),
        show: |options| values::show_level(options.log_level),
    },
    OptionSpec {
        long: SECRETS_FILE,
        env: "FLOW_PROXY_SECRETS_FILE",
        value_name: "FILE",
        bare: None,
        help: "credentials file (JSON array); FLOW_PROXY_SECRETS may hold the array in its place",
        complete: Complete::Files,
        set: |options, text| {
            values::path(text).map(|path| options.secrets = SecretsSource::File(path))
        },
        show: |options| match &options.secrets {
            SecretsSource::File(path) => values::show_path(path),
            SecretsSource::Array(_) => "none".to_owned(),
        },
    },
    OptionSpec {
        long: "log-file",
        env: "FLOW_PROXY_LOG_FILE",
        value_name: "FILE",
        bare: None,
        help: "log file, in addition to stderr; none or - = stderr only",
        complete: Complete::Files,
        set: |options, text| values::log_file(text).map(|file| options.log_file = file),
        show: |options| {
            let file = options.log_file.as_ref();
            values::show_optional_path(file.map(|file| file.path.as_path()))
        },
    },
    OptionSpec {
        long: "log-max-size",
        env: "FLOW_PROXY_LOG_MAX_SIZE",
        value_name: "SIZE",
        bare: None,
        help: "size at which the log file is renamed to FILE.1, older ones move up; 0 = never",
        complete: Complete::Nothing,
        set: |options, text| values::log_size(text).map(|size| options.log_max_size = size),
        show: |options| values::show_size(options.log_max_size),
    },
    OptionSpec {
        long: "log-keep",
        env: "FLOW_PROXY_LOG_KEEP",
        value_name: "N",
        bare: None,
        help: "renamed log files to keep, 0 to 1000; 0 = a full log file is emptied",
        complete: Complete::Nothing,
        set: |options, text| values::log_keep(text).map(|count| options.log_keep = count),
        show: |options| options.log_keep.to_string(),
    },
    OptionSpec {
        long: "log-format",
        env: "FLOW_PROXY_LOG_FORMAT",
        value_name: "FORMAT",
        bare: None,
        help: "how the log is written: text, or json = one object a line",
        complete: Complete::Words(&values::LOG_FORMATS),
        set: |options, text| values::log_format(text).map(|format| options.log_format = format),
        show: |options| values::show_log_format(options.log_format),
    },
    OptionSpec {
        long: "target-url",
        env: "FLOW_PROXY_TARGET_URL",
        value_name: "URL",
        bare: None,
        help: "where requests go; http:// for loopback hosts, or with --allow-http-target",
        complete: Complete::Nothing,
        set: |options, text| Target::parse(text).map(|target| options.target = target),
        show: |options| options.target.to_string(),
    },
    OptionSpec {
        long: "allow-http-target",
        env: "FLOW_PROXY_ALLOW_HTTP_TARGET",
        value_name: "[BOOL]",
        bare: Some("true"),
        help: "allow an http:// target that is not loopback: it sends the clientSecret in clear text",
        complete: Complete::Words(&["true", "false"]),
        set: |options, text| values::boolean(text).map(|value| options.allow_http_target = value),
        show: |options| options.allow_http_target.to_string(),
    },
    OptionSpec {
        long: "workers",
        env: "FLOW_PROXY_WORKERS",
        value_name: "N",
        bare: None,
        help: "requests and streams in flight at once, 1 to 16384",
        complete: Complete::Nothing,
        set: |options, text| values::workers(text).map(|workers| options.workers = workers),
        show: |options| options.workers.to_string(),
    },
    OptionSpec {
        long: "limit-wait",
        env: "FLOW_PROXY_LIMIT_WAIT",
        value_name: "TIME",
        bare: None,
        help: "maximum time a request waits when every credential is limited; 0 = off",
        complete: Complete::Nothing,
        set: |options, text| values::timeout_or_zero(text).map(|time| options.limit_wait = time),
        show: |options| values::show_duration(options.limit_wait),
    },
    OptionSpec {
        long: "upstream-timeout",
        env: "FLOW_PROXY_UPSTREAM_TIMEOUT",
        value_name: "TIME",
        bare: None,
        help: "maximum time without a byte from the upstream",
        complete: Complete::Nothing,
        set: |options, text| values::timeout(text).map(|time| options.upstream_timeout = time),
        show: |options| values::show_duration(options.upstream_timeout),
    },
    OptionSpec {
        long: "client-timeout",
        env: "FLOW_PROXY_CLIENT_TIMEOUT",
        value_name: "TIME",
        bare: None,
        help: "maximum time a client may stall while sending a body or reading a response",
        complete: Complete::Nothing,
        set: |options, text| values::timeout(text).map(|time| options.client_timeout = time),
        show: |options| values::show_duration(options.client_timeout),
    },
    OptionSpec {
        long: "shutdown-timeout",
        env: "FLOW_PROXY_SHUTDOWN_TIMEOUT",
        value_name: "TIME",
        bare: None,
        help: "grace period for requests in flight after SIGTERM; 0 = none",
        complete: Complete::Nothing,
        set: |options, text| {
            values::timeout_or_zero(text).map(|time| options.shutdown_timeout = time)
        },
        show: |options| values::show_duration(options.shutdown_timeout),
    },
    OptionSpec {
        long: "max-body",
        env: "FLOW_PROXY_MAX_BODY",
        value_name: "SIZE",
        bare: None,
        help: "largest request body; 0 = no limit",
        complete: Complete::Nothing,
        set: |options, text| values::size(text).map(|size| options.max_body = size),
        show: |options| values::show_size(options.max_body),
    },
    OptionSpec {
        long: "ca-file",
        env: "FLOW_PROXY_CA_FILE",
        value_name: "FILE",
        bare: None,
        help: "PEM certificates to trust besides the Mozilla roots, and those in SSL_CERT_FILE",
        complete: Complete::Files,
        set: |options, text| values::path(text).map(|path| options.ca_file = Some(path)),
        show: |options| values::show_optional_path(options.ca_file.as_deref()),
    },
    OptionSpec {
        long: "allow-host",
        env: "FLOW_PROXY_ALLOW_HOST",
        value_name: "NAMES",
        bare: None,
        help: "further host names that requests may be sent to, comma-separated",
        complete: Complete::Nothing,
        set: |options, text| values::host_names(text).map(|names| options.allow_host = names),
        show: |options| values::show_list(&options.allow_host),
    },
    OptionSpec {
        long: "allow-origin",
        env: "FLOW_PROXY_ALLOW_ORIGIN",
        value_name: "ORIGINS",
        bare: None,
        help: "further origins whose web pages may call and read the answers, comma-separated",
        complete: Complete::Nothing,
        set: |options, text| values::origins(text).map(|list| options.allow_origin = list),
        show: |options| values::show_list(&options.allow_origin),
    },
    OptionSpec {
        long: "admin-from",
        env: "FLOW_PROXY_ADMIN_FROM",
        value_name: "ADDRESSES",
        bare: None,
        help: "further addresses and blocks whose callers may see /-/, its status and metrics",
        complete: Complete::Nothing,
        set: |options, text| values::blocks(text).map(|blocks| options.admin_from = blocks),
        show: |options| {
            let blocks = options.admin_from.iter().map(Block::to_string);
            values::show_list(&blocks.collect::<Vec<_>>())
        },
    },
];
