use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::{Invocation, UsageErrors, parse};

/// A `.env` file for one test, removed when dropped.
pub(super) struct DotEnv(pub(super) PathBuf);

impl DotEnv {
    pub(super) fn holding(text: &str) -> DotEnv {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flow-proxy-dotenv-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        DotEnv(path)
    }
}

impl Drop for DotEnv {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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
