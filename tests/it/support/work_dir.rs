//! The built binary, run to its end in a directory of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::TempDir;

/// A fresh working directory, removed with all it holds when dropped.
pub struct WorkDir(TempDir);

/// What a run left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl WorkDir {
    pub fn new() -> WorkDir {
        WorkDir(TempDir::new())
    }

    /// Makes a working directory with this secrets.json.
    pub fn with_secrets(contents: impl AsRef<[u8]>) -> WorkDir {
        let dir = WorkDir::new();
        dir.write("secrets.json", contents);
        dir
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs the binary here with nothing in its environment but `environment`.
    pub fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Finished {
        let output = Command::new(env!("CARGO_BIN_EXE_flow-proxy"))
            .args(args)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Finished::from(output)
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Finished {
    /// Returns stdout and stderr.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
