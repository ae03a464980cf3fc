//! The metrics, in Prometheus' text format 0.0.4. Entries of one name make one series.

use std::fmt::{self, Display, Write};
use std::fs;
use std::time::UNIX_EPOCH;

use http::StatusCode;

use super::look::{AdminResponse, Look};
use super::status::by_name;
use crate::proxy::balancer::snapshot::EntryState;
use crate::proxy::ledger::counts::Counts;
use crate::proxy::ledger::histogram::Histogram;

/// The page `metrics`.
pub fn metrics(look: &Look<'_>) -> AdminResponse {
    let counts = look.ledger.counts();
    let mut text = Text(String::with_capacity(8 * 1024));
    requests(&mut text, &counts);
    usage(&mut text, &counts);
    configurations(&mut text, look);
    let server = look.server;
    text.gauge(
        "flow_proxy_in_flight",
        "Requests in flight.",
        server.in_flight,
    );
    text.gauge(
        "flow_proxy_workers",
        "The most requests in flight.",
        server.workers,
    );
    text.gauge(
        "flow_proxy_connections",
        "Open connections of clients.",
        server.connections,
    );
    text.histogram(
        "flow_proxy_time_to_first_byte_seconds",
        "From a request's head to its response's.",
        &counts.first_byte,
    );
    text.histogram(
        "flow_proxy_request_duration_seconds",
        "From a request's head to the end of its response.",
        &counts.duration,
    );
    text.family(
        "flow_proxy_log_lines_dropped_total",
        "counter",
        "Lines that the log has lost.",
    );
    text.sample(
        "flow_proxy_log_lines_dropped_total",
        &[],
        look.log_lines_dropped,
    );
    text.family("flow_proxy_build_info", "gauge", "The version.");
    let version = env!("CARGO_PKG_VERSION");
    text.sample("flow_proxy_build_info", &[("version", version)], 1);
    process(&mut text, look);
    AdminResponse {
        status: StatusCode::OK,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        policy: None,
        body: text.0.into(),
    }
}

fn requests(text: &mut Text, counts: &Counts) {
    let name = "flow_proxy_requests_total";
    text.family(name, "counter", "Requests that have ended.");
    for config in &counts.configs {
        for ((status, end), count) in &config.counts.outcomes {
            let status = match status {
                0 => "other".to_owned(),
                status => status.to_string(),
            };
            let labels = [
                ("config", &*config.name),
                ("status", &status),
                ("end", end.as_str()),
            ];
            text.sample(name, &labels, count);
        }
    }
    let name = "flow_proxy_attempts_total";
    text.family(
        name,
        "counter",
        "Attempts, by what the upstream's response said.",
    );
    for config in &counts.configs {
        for (verdict, count) in &config.counts.attempts {
            let labels = [("config", &*config.name), ("verdict", verdict)];
            text.sample(name, &labels, count);
        }
    }
}

fn usage(text: &mut Text, counts: &Counts) {
    let name = "flow_proxy_tokens_total";
    text.family(
        name,
        "counter",
        "Tokens that responses told; cached ones are part of the input.",
    );
    let by_model = || {
        counts.configs.iter().flat_map(|config| {
            let models = config.counts.models.iter();
            models.map(|(model, (tokens, cost))| {
                let model = counts.models.get(*model);
                let model = model.map_or("", |model| &*model.name);
                (&*config.name, model, tokens, cost)
            })
        })
    };
    for (config, model, tokens, _) in by_model() {
        for (kind, number) in [
            ("input", tokens.input),
            ("cached", tokens.cached),
            ("output", tokens.output),
        ] {
            let labels = [("config", config), ("model", model), ("kind", kind)];
            text.sample(name, &labels, number);
        }
    }
    let name = "flow_proxy_usage_unknown_total";
    text.family(
        name,
        "counter",
        "Requests that may have used tokens and did not tell.",
    );
    for config in &counts.configs {
        let labels = [("config", &*config.name)];
        text.sample(name, &labels, config.counts.tally.unknown);
    }
    let name = "flow_proxy_cost_usd_total";
    text.family(
        name,
        "counter",
        "Cost that the upstream told, in US dollars.",
    );
    for (config, model, _, cost) in by_model() {
        text.sample(name, &[("config", config), ("model", model)], cost);
    }
}

fn configurations(text: &mut Text, look: &Look<'_>) {
    let entries = look.balancer.snapshot(look.now);
    let named = by_name(entries.clone());
    let name = "flow_proxy_config_available";
    text.family(
        name,
        "gauge",
        "Entries of this name that requests are given to.",
    );
    for one in &named {
        let is_available = |state| state <= EntryState::Trying && state != EntryState::Busy;
        let same = entries.iter().filter(|entry| entry.name == one.name);
        let available = same.filter(|entry| is_available(entry.state)).count();
        text.sample(name, &[("config", &one.name)], available);
    }
    let name = "flow_proxy_config_rest_seconds";
    text.family(name, "gauge", "How long the configuration still rests.");
    for one in &named {
        let rest = one.rest.unwrap_or_default().as_secs_f64();
        text.sample(name, &[("config", &one.name)], rest);
    }
}

/// What Prometheus' client libraries tell of each process; on Linux only.
fn process(text: &mut Text, look: &Look<'_>) {
    if let Some(bytes) = resident_bytes() {
        text.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // Without the one that reads the directory.
        let open = descriptors.count().saturating_sub(1);
        text.gauge("process_open_fds", "Open file descriptors.", open);
    }
    let started = look.ledger.started_at.duration_since(UNIX_EPOCH);
    text.gauge(
        "process_start_time_seconds",
        "When the process started, since 1970.",
        started.unwrap_or_default().as_secs_f64(),
    );
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = status.lines();
    let resident = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The text so far.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.push(format_args!("{name}{} {value}\n", Labels(labels)));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let cumulated = histogram.cumulated();
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.bounds.iter().zip(cumulated) {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        let all = cumulated[cumulated.len() - 1];
        self.sample(&bucket, &[("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], histogram.seconds());
        self.sample(&format!("{name}_count"), &[], all);
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(text);
    }
}

/// Labels, escaped as the text format asks.
struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl Display for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            write!(formatter, "{separator}{name}=\"")?;
            for char in value.chars() {
                match char {
                    '\\' => formatter.write_str("\\\\")?,
                    '"' => formatter.write_str("\\\"")?,
                    '\n' => formatter.write_str("\\n")?,
                    char => formatter.write_char(char)?,
                }
            }
            formatter.write_char('"')?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            formatter.write_char('}')
        }
    }
}
