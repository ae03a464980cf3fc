//! The status as JSON. Its shape is what the page, the terminal and scripts read.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Serialize;

use super::look::{AdminResponse, Look, utc};
use crate::proxy::balancer::snapshot::EntryStatus;
use crate::proxy::ledger::counts::{
    ClientCounts, ConfigCounts, Counts, ModelCounts, NONE, Named, OTHER, Tally,
};
use crate::proxy::ledger::minutes::Minute;
use crate::proxy::ledger::recent::Ended;
use crate::proxy::usage::tokens::Tokens;

#[derive(Serialize)]
struct Status<'c> {
    version: &'static str,
    state: &'static str,
    started_at: String,
    uptime_s: u64,
    summary: String,
    target: String,
    workers: Workers,
    connections: usize,
    requests: Requests,
    tokens: TokenCounts,
    cost: Cost,
    configurations: Vec<ConfigStatus<'c>>,
    models: Vec<ModelRow<'c>>,
    clients: Vec<ClientRow<'c>>,
    minutes: Vec<MinuteRow>,
    recent: Vec<RecentRow<'c>>,
}

#[derive(Serialize)]
struct Workers {
    busy: usize,
    total: usize,
}

#[derive(Serialize)]
struct Requests {
    total: u64,
    in_flight: usize,
    last_hour: u64,
    failed_over: u64,
    by_status: BTreeMap<String, u64>,
}

/// Tokens, and of how many requests they are known.
#[derive(Serialize, Default)]
struct TokenCounts {
    input: u64,
    cached: u64,
    output: u64,
    known: u64,
    unknown: u64,
}

/// In US dollars, and of how many requests it is not known.
#[derive(Serialize, Default)]
struct Cost {
    total: f64,
    unknown: u64,
}

#[derive(Serialize)]
struct ConfigStatus<'c> {
    name: &'c str,
    state: &'static str,
    reason: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// Seconds, rounded up.
    rest_s: Option<u64>,
    requests: u64,
    in_flight: usize,
    rejected: u64,
    tokens: TokenCounts,
    cost: Cost,
    spend: Option<f64>,
    budget: Option<f64>,
    models: Vec<ModelRest<'c>>,
}

#[derive(Serialize)]
struct ModelRest<'c> {
    model: &'c str,
    state: &'static str,
    rest_s: u64,
}

#[derive(Serialize)]
struct ModelRow<'c> {
    model: &'c str,
    requests: u64,
    tokens: TokenCounts,
    cost: Cost,
    ttfb_ms: Option<Percentiles>,
}

/// Of the last times to the first byte.
#[derive(Serialize)]
struct Percentiles {
    p50: u32,
    p95: u32,
}

#[derive(Serialize)]
struct ClientRow<'c> {
    client: &'static str,
    agent: &'c str,
    requests: u64,
    tokens: TokenCounts,
    cost: Cost,
}

#[derive(Serialize)]
struct MinuteRow {
    minute: String,
    requests: u64,
    errors: u64,
    output_tokens: u64,
}

#[derive(Serialize)]
struct RecentRow<'c> {
    time: String,
    method: String,
    path: String,
    status: u16,
    config: &'c str,
    model: Option<&'c str>,
    attempts: usize,
    ttfb_ms: u128,
    duration_ms: u128,
    end: &'static str,
    client: &'static str,
    agent: Option<&'c str>,
    tokens: Option<RecentTokens>,
    cost: Option<f64>,
    id: String,
}

#[derive(Serialize)]
struct RecentTokens {
    input: u64,
    cached: u64,
    output: u64,
}

/// The page `status`.
pub fn status(look: &Look<'_>) -> AdminResponse {
    let counts = look.ledger.counts();
    let entries = by_name(look.balancer.snapshot(look.now));
    let hour: Vec<_> = counts.minutes.until(look.at).collect();
    let last_hour = hour.iter().map(|minute| minute.requests).sum();
    let failed_over = hour.iter().map(|minute| minute.failed_over).sum();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        state: if look.is_stopping {
            "stopping"
        } else {
            "serving"
        },
        started_at: utc(look.ledger.started_at),
        uptime_s: look
            .now
            .saturating_duration_since(look.ledger.started)
            .as_secs(),
        summary: summary(look.balancer.available(look.now), last_hour, failed_over),
        target: look.target.to_string(),
        workers: Workers {
            busy: look.server.in_flight,
            total: look.server.workers,
        },
        connections: look.server.connections,
        requests: Requests {
            total: counts.total.requests,
            in_flight: look.server.in_flight,
            last_hour,
            failed_over: counts.failed_over,
            by_status: by_status(&counts),
        },
        tokens: TokenCounts::of(&counts.total),
        cost: Cost::of(&counts.total),
        configurations: configurations(&entries, &counts, look.at),
        models: counts.models.iter().map(model_row).collect(),
        clients: counts.clients.iter().map(client_row).collect(),
        minutes: hour.iter().map(minute_row).collect(),
        recent: counts.recent.iter().rev().map(recent_row).collect(),
    };
    // Strings and numbers always serialize.
    let body = serde_json::to_string(&status).unwrap_or_default();
    AdminResponse::json(StatusCode::OK, body)
}

/// The state of each name: of several entries with one name, the best.
pub(super) fn by_name(entries: Vec<EntryStatus>) -> Vec<EntryStatus> {
    let mut named: Vec<EntryStatus> = Vec::with_capacity(entries.len());
    for entry in entries {
        match named.iter_mut().find(|known| known.name == entry.name) {
            None => named.push(entry),
            Some(known) => {
                let in_flight = known.in_flight + entry.in_flight;
                if entry.state < known.state {
                    *known = entry;
                }
                known.in_flight = in_flight;
            }
        }
    }
    named
}

/// Those of the file, then those that a reload has removed: what they have used stays.
fn configurations<'c>(
    entries: &'c [EntryStatus],
    counts: &'c Counts,
    at: SystemTime,
) -> Vec<ConfigStatus<'c>> {
    let none = ConfigCounts::default();
    let of = |name: &str| counts.configs.iter().find(|one| *one.name == *name);
    let present = entries.iter().map(|entry| {
        let counts = of(&entry.name).map_or(&none, |one| &one.counts);
        let mut status = config_status(&entry.name, entry.state.as_str(), counts);
        status.reason = entry.reason.map(|(code, why)| format!("{code} {why}"));
        status.since = entry.since.map(|since| utc(at - since));
        status.until = entry.rest.map(|rest| utc(at + rest));
        status.rest_s = entry.rest.map(seconds);
        status.in_flight = entry.in_flight;
        let models = entry.models.iter();
        status.models = models
            .map(|rest| ModelRest {
                model: &rest.model,
                state: rest.state,
                rest_s: seconds(rest.rest),
            })
            .collect();
        status
    });
    let is_removed = |one: &&Named<ConfigCounts>| {
        ![NONE, OTHER].contains(&&*one.name) && !entries.iter().any(|entry| entry.name == one.name)
    };
    let removed = counts.configs.iter().filter(is_removed);
    let removed = removed.map(|one| config_status(&one.name, "removed", &one.counts));
    present.chain(removed).collect()
}

fn config_status<'c>(
    name: &'c str,
    state: &'static str,
    counts: &ConfigCounts,
) -> ConfigStatus<'c> {
    ConfigStatus {
        name,
        state,
        reason: None,
        since: None,
        until: None,
        rest_s: None,
        requests: counts.tally.requests,
        in_flight: 0,
        rejected: counts.rejected,
        tokens: TokenCounts::of(&counts.tally),
        cost: Cost::of(&counts.tally),
        spend: counts.spend,
        budget: counts.budget,
        models: Vec::new(),
    }
}

fn model_row(model: &Named<ModelCounts>) -> ModelRow<'_> {
    ModelRow {
        model: &model.name,
        requests: model.counts.tally.requests,
        tokens: TokenCounts::of(&model.counts.tally),
        cost: Cost::of(&model.counts.tally),
        ttfb_ms: model
            .counts
            .percentiles()
            .map(|(p50, p95)| Percentiles { p50, p95 }),
    }
}

fn client_row(client: &Named<ClientCounts>) -> ClientRow<'_> {
    ClientRow {
        client: NONE,
        agent: &client.name,
        requests: client.counts.tally.requests,
        tokens: TokenCounts::of(&client.counts.tally),
        cost: Cost::of(&client.counts.tally),
    }
}

fn minute_row(minute: &Minute) -> MinuteRow {
    MinuteRow {
        minute: utc(UNIX_EPOCH + Duration::from_secs(minute.number * 60)),
        requests: minute.requests,
        errors: minute.errors,
        output_tokens: minute.output_tokens,
    }
}

fn recent_row(ended: &Ended) -> RecentRow<'_> {
    let log = &ended.log;
    RecentRow {
        time: utc(ended.at),
        method: ended.method(),
        path: ended.path(),
        status: log.status,
        config: ended.config.as_deref().unwrap_or(NONE),
        model: log.model.as_deref(),
        attempts: log.attempts,
        ttfb_ms: ended.first_byte().as_millis(),
        duration_ms: ended.duration.as_millis(),
        end: log.end.as_str(),
        client: NONE,
        agent: log.agent.as_deref(),
        tokens: ended.tokens().map(RecentTokens::from),
        cost: log.cost,
        id: ended.id(),
    }
}

fn summary((available, total): (usize, usize), last_hour: u64, failed_over: u64) -> String {
    let s = |number: u64| if number == 1 { "" } else { "s" };
    format!(
        "{available} of {total} configuration{} available. {last_hour} request{} in the last hour, \
         {failed_over} failed over.",
        s(total as u64),
        s(last_hour),
    )
}

/// Counts by hundreds, but for that of clients that left.
fn by_status(counts: &Counts) -> BTreeMap<String, u64> {
    let mut by_status = BTreeMap::new();
    let outcomes = counts.configs.iter().flat_map(|one| &one.counts.outcomes);
    for ((status, _), count) in outcomes {
        let class = match status {
            499 => "499".to_owned(),
            0 => "other".to_owned(),
            _ => format!("{}xx", status / 100),
        };
        *by_status.entry(class).or_default() += count;
    }
    by_status
}

impl From<Tokens> for RecentTokens {
    fn from(tokens: Tokens) -> Self {
        RecentTokens {
            input: tokens.input,
            cached: tokens.cached,
            output: tokens.output,
        }
    }
}

impl TokenCounts {
    fn of(tally: &Tally) -> TokenCounts {
        TokenCounts {
            input: tally.tokens.input,
            cached: tally.tokens.cached,
            output: tally.tokens.output,
            known: tally.known,
            unknown: tally.unknown,
        }
    }
}

impl Cost {
    fn of(tally: &Tally) -> Cost {
        Cost {
            total: tally.cost,
            unknown: tally.cost_unknown,
        }
    }
}

fn seconds(rest: Duration) -> u64 {
    u64::try_from(rest.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}
