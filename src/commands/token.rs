//! The command `token`: prints the token of one configuration.

use super::report::{Failure, print};
use crate::config::file::Pipes;
use crate::config::options::Options;
use crate::config::secrets;
use crate::config::shown::quoted;

/// Prints the token of the configuration `name`, or of the first one.
pub(super) fn run(options: &Options, name: Option<&str>) -> Result<(), Failure> {
    let configurations = secrets::load(&options.secrets, Pipes::Wait)?.configurations;
    let found = match name {
        None => configurations.first(),
        Some(name) => configurations.iter().find(|one| *one.name == *name),
    };
    let configuration = found.ok_or_else(|| {
        let name = quoted(name.unwrap_or_default());
        let names = secrets::quoted_names(&configurations);
        Failure::configuration(format!(
            "there is no configuration {name}; there are {names}"
        ))
    })?;
    print(&format!("{}\n", configuration.token()))
}
