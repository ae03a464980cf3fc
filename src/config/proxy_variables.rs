//! The variables that name a proxy between this program and the target, as they stand. What they mean
//! is decided in `upstream::proxy_env`. Plain data.

use std::fmt;

use zeroize::Zeroize;

/// The variables, in upper case; they count in lower case too.
const NAMES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Whether `name` is the name of a proxy variable, in upper or lower case.
pub fn is_proxy_variable(name: &str) -> bool {
    let mut known = NAMES.iter();
    known.any(|known| name == *known || name == known.to_ascii_lowercase())
}

/// The proxy variables of each source.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyVariables {
    /// Names and values in the environment.
    pub environment: Vec<(String, String)>,
    /// Names and values in `.env`. They count where the environment says nothing.
    pub dotenv: Vec<(String, String)>,
}

impl ProxyVariables {
    /// Returns each source, with what messages put in front of its variables.
    pub fn sources(&self) -> [(&'static str, &[(String, String)]); 2] {
        [("", &self.environment), (".env: ", &self.dotenv)]
    }
}

/// A value may hold a password.
impl Drop for ProxyVariables {
    fn drop(&mut self) {
        let all = self.environment.iter_mut().chain(&mut self.dotenv);
        all.for_each(|(_, value)| value.zeroize());
    }
}

/// Shows the names only: a value may hold a password.
impl fmt::Debug for ProxyVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.environment.iter().chain(&self.dotenv);
        f.debug_list().entries(all.map(|(name, _)| name)).finish()
    }
}
