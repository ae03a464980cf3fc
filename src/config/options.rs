//! The settings that are in force, as typed values, with their defaults.
//!
//! Out of scope: where a value comes from and how it is written (`cli`). Plain data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::address::{Block, Host};
use super::proxy_variables::ProxyVariables;
use super::secrets::SecretsSource;
use super::target::Target;

/// The variable by which OpenSSL, curl and others are given roots to trust.
pub const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// The file of variables, in the working directory.
pub const DOTENV: &str = ".env";

/// The options in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The port to listen on; 0 is any free one.
    pub port: u16,
    /// Where to listen.
    pub host: Host,
    /// The minimum level to log.
    pub log_level: LevelFilter,
    /// Further names that Host may have, in lower case, without ports.
    pub allow_host: Vec<String>,
    /// Further origins whose pages may call, as browsers write them.
    pub allow_origin: Vec<String>,
    /// Callers beside loopback that may see the pages.
    pub admin_from: Vec<Block>,
    /// Where the credentials come from.
    pub secrets: SecretsSource,
    /// The directory that the secrets file must not leave, whatever replaces it: that of a `.env` file with
    /// lines that count only beside their secrets.
    pub secrets_within: Option<PathBuf>,
    /// The log file, which is written in addition to stderr; `None` is stderr only.
    pub log_file: Option<LogFile>,
    /// The size in bytes at which the log file is renamed; `None` is never.
    pub log_max_size: Option<u64>,
    /// How many renamed log files are kept.
    pub log_keep: u32,
    /// How the lines of the log are written.
    pub log_format: LogFormat,
    /// Where requests are forwarded to.
    pub target: Target,
    /// Whether the target may be reached without encryption.
    pub allow_http_target: bool,
    /// Requests and streams in flight at once, 1 to 16384.
    pub workers: usize,
    /// How long a request may wait where every credential is limited; 0 is not at all.
    pub limit_wait: Duration,
    /// The maximum time without a byte from the upstream; not 0.
    pub upstream_timeout: Duration,
    /// The maximum time a client may stall while sending a body or reading a response; not 0.
    pub client_timeout: Duration,
    /// The grace period for requests in flight after SIGTERM; 0 is none.
    pub shutdown_timeout: Duration,
    /// The largest request body in bytes; `None` is no limit.
    pub max_body: Option<u64>,
    /// PEM roots to trust in addition to the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// What the variable `SSL_CERT_FILE` names: further PEM roots to trust.
    pub ssl_cert_file: Option<PathBuf>,
    /// The variables that name a proxy between this program and the target.
    pub proxy_variables: ProxyVariables,
}

impl Options {
    /// Returns the files of roots to trust in addition to the built-in ones, each with what messages
    /// call its source.
    pub fn root_files(&self) -> Vec<(&'static str, &Path)> {
        let ca_file = self.ca_file.as_deref().map(|path| ("--ca-file", path));
        let variable = self.ssl_cert_file.as_deref();
        let variable = variable.map(|path| (SSL_CERT_FILE, path));
        ca_file.into_iter().chain(variable).collect()
    }

    /// Returns the files that are read, `dotenv_path` included, each with what messages call it. The log is
    /// never written to one of them.
    pub fn read_files<'p>(&'p self, dotenv_path: &'p Path) -> Vec<(&'static str, &'p Path)> {
        let mut files = vec![("the .env file", dotenv_path)];
        if let SecretsSource::File(path) = &self.secrets {
            files.push(("the secrets file", path));
        }
        let roots = self.root_files().into_iter();
        files.extend(roots.map(|(_, path)| ("a file of certificates", path)));
        files
    }
}

/// The log file, and whether it must be writable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether the user named it: failing to open it is then an error, otherwise a warning.
    pub is_required: bool,
}

/// How the lines of the log are written, to stderr and to the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and `grep`.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            port: 8899,
            host: Host::Default,
            log_level: LevelFilter::Info,
            allow_host: Vec::new(),
            allow_origin: Vec::new(),
            admin_from: Vec::new(),
            secrets: SecretsSource::File(PathBuf::from("secrets.json")),
            secrets_within: None,
            log_file: Some(LogFile {
                path: PathBuf::from("flow_proxy_plugin.log"),
                is_required: false,
            }),
            log_max_size: Some(32 << 20),
            log_keep: 7,
            log_format: LogFormat::Text,
            target: Target {
                https: true,
                authority: "flow.ciandt.com".to_owned(),
                host: "flow.ciandt.com".to_owned(),
                port: 443,
                base_path: "/flow-llm-proxy".to_owned(),
            },
            allow_http_target: false,
            workers: 256,
            limit_wait: Duration::ZERO,
            upstream_timeout: Duration::from_secs(600),
            client_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(30),
            max_body: Some(100 << 20),
            ca_file: None,
            ssl_cert_file: None,
            proxy_variables: ProxyVariables::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_target_is_what_its_url_parses_to() {
        let target = Options::default().target;
        assert_eq!(Target::parse(&target.to_string()), Ok(target));
    }
}
