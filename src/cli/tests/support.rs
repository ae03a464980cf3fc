use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::{Invocation, UsageErrors, parse};

/// A `.env` file for one test in a directory of its own, removed when dropped.
pub(super) struct DotEnv(pub(super) PathBuf);

impl DotEnv {
    pub(super) fn holding(text: &str) -> DotEnv {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flow-proxy-dotenv-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(".env");
        std::fs::write(&path, text).unwrap();
        DotEnv(path)
    }

    /// Like [`holding`](Self::holding), with a line that names a secrets file beside it, so that all
    /// other lines count.
    pub(super) fn with_secrets_file(text: &str) -> DotEnv {
        let dotenv = DotEnv::holding("");
        let secrets = dotenv.secrets_file();
        std::fs::write(&secrets, "").unwrap();
        let line = format!("FLOW_PROXY_SECRETS_FILE={}\n", secrets.display());
        std::fs::write(&dotenv.0, line + text).unwrap();
        dotenv
    }

    pub(super) fn secrets_file(&self) -> PathBuf {
        self.0.with_file_name("secrets.json")
    }
}

impl Drop for DotEnv {
    fn drop(&mut self) {
        let directory = self.0.parent().unwrap();
        let _ = std::fs::remove_dir_all(directory);
    }
}

pub(super) fn parse_with(
    args: &[&str],
    environment: &[(&str, &str)],
    dotenv: &Path,
) -> Result<Invocation, UsageErrors> {
    let environment = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    parse(args.iter().map(OsString::from), environment, dotenv)
}

pub(super) fn parsed(args: &[&str], environment: &[(&str, &str)]) -> Invocation {
    parse_with(args, environment, Path::new("/nonexistent/.env")).unwrap()
}

pub(super) fn errors(args: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    parse_with(args, environment, Path::new("/nonexistent/.env"))
        .unwrap_err()
        .0
}

pub(super) fn setting(invocation: &Invocation, name: &str) -> (String, String) {
    let setting = invocation
        .settings
        .iter()
        .find(|setting| setting.name == name)
        .unwrap();
    (setting.value.clone(), setting.source.to_string())
}
