//! What is read of `/-/status`. What is missing counts as nothing, so that pages of other versions can be
//! read; without the fields that have no default it is no page of flow-proxy's.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub state: String,
    pub configurations: Vec<Configuration>,
    #[serde(default)]
    pub uptime_s: u64,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub workers: Workers,
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub requests: Requests,
    #[serde(default)]
    pub tokens: Tokens,
    #[serde(default)]
    pub cost: Cost,
    #[serde(default)]
    pub models: Vec<Model>,
    #[serde(default)]
    pub clients: Vec<Client>,
}

impl Snapshot {
    /// Reads the page. `None`: it is not flow-proxy's.
    pub fn parse(body: &[u8]) -> Option<Snapshot> {
        let snapshot: Snapshot = serde_json::from_slice(body).ok()?;
        let is_own = matches!(&*snapshot.state, "serving" | "stopping");
        (is_own && !snapshot.version.is_empty()).then_some(snapshot)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Workers {
    pub busy: u64,
    pub total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Requests {
    pub total: u64,
    pub in_flight: u64,
    pub failed_over: u64,
    pub by_status: BTreeMap<String, u64>,
}

/// What was used, and of how many requests that is known.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub known: u64,
    pub unknown: u64,
}

/// In US dollars, and of how many requests it is not known.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cost {
    pub total: f64,
    pub unknown: u64,
}

#[derive(Debug, Deserialize)]
pub struct Configuration {
    pub name: String,
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub rest_s: Option<u64>,
    #[serde(default)]
    pub requests: u64,
    #[serde(default)]
    pub rejected: u64,
    #[serde(default)]
    pub tokens: Tokens,
    #[serde(default)]
    pub cost: Cost,
    pub spend: Option<f64>,
    pub budget: Option<f64>,
    #[serde(default)]
    pub models: Vec<ModelRest>,
}

/// A model that a configuration is passed over for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ModelRest {
    pub model: String,
    pub state: String,
    pub rest_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Model {
    pub model: String,
    pub requests: u64,
    pub tokens: Tokens,
    pub cost: Cost,
    pub ttfb_ms: Option<FirstByte>,
}

/// Milliseconds to the first byte.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FirstByte {
    pub p50: f64,
    pub p95: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Client {
    pub client: String,
    pub agent: String,
    pub requests: u64,
    pub tokens: Tokens,
    pub cost: Cost,
}
