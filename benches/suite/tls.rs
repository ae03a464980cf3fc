//! The same with a TLS upstream, as in production: nginx with a certificate made for the run, and in
//! front of it flow-proxy, or nginx with `proxy_pass https` and persistent connections.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::setups::{FLOW, NGINX, STREAM_WORKERS, Setup};
use super::{Plan, rates, sse};
use crate::support::fronts::{
    FlowProxy, Front, Scratch, is_in_path, nginx_proxy_block, start_nginx,
};
use crate::support::load::Load;
use crate::support::report::{Report, Section, ms, one_decimal, ratio};
use crate::support::roles;
use crate::support::upstream::SMALL_BODY;

/// The default number of workers.
const ALL_WORKERS: usize = 256;
/// Longer streams than without TLS: 500 handshakes take a while, and all streams must overlap.
const EVENTS: u64 = 150;

/// The TLS upstream and what its clients need to know.
struct TlsUpstream {
    front: Front,
    ca_file: PathBuf,
    /// A line for each request to `/counted` and `/closing`: `r` or `.`, and the request's number
    /// on its connection.
    handshakes: PathBuf,
}

pub fn run(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    if !is_in_path("nginx") || !is_in_path("openssl") {
        eprintln!("bench: tls is left out: it needs nginx and openssl in PATH");
        return Ok(());
    }
    let (_streams, stream_upstream) = roles::start_upstream()?;
    let upstream = start_upstream(scratch, stream_upstream)?;
    rows(plan, scratch, &upstream, report)?;
    memory_and_resumption(plan, scratch, &upstream, report)
}

fn start_upstream(scratch: &Scratch, streams: SocketAddr) -> io::Result<TlsUpstream> {
    make_certificates(scratch)?;
    let (ca, chain, key) = (
        scratch.path("ca.pem"),
        scratch.path("server.pem"),
        scratch.path("server.key"),
    );
    let handshakes = scratch.path("handshakes.log");
    let counted = format!("access_log {} handshakes;", handshakes.display());
    let response = format!("default_type application/json; return 200 '{SMALL_BODY}';");
    let block = format!(
        "log_format handshakes '$ssl_session_reused $connection_requests';\n\
         upstream streams {{ server {streams}; keepalive 1024; }}\n\
         server {{ listen 127.0.0.1:{{port}} ssl;\n\
         ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_session_cache shared:tls:10m;\n\
         location / {{ {response} }}\n\
         location /counted {{ {counted} {response} }}\n\
         location /closing {{ {counted} keepalive_timeout 0; {response} }}\n\
         location /sse {{ proxy_pass http://streams; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_buffering off; }} }}",
        chain.display(),
        key.display()
    );
    Ok(TlsUpstream {
        front: start_nginx(scratch, "tls-upstream", &block)?,
        ca_file: ca,
        handshakes,
    })
}

/// Makes a certificate authority and a certificate for localhost that it signed.
fn make_certificates(scratch: &Scratch) -> io::Result<()> {
    let path = |name: &str| scratch.path(name).display().to_string();
    let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
    let (server, key, request) = (path("server.pem"), path("server.key"), path("server.csr"));
    let names = path("names.cnf");
    fs::write(
        &names,
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )?;
    let new_key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=bench authority"];
    let authority_files = ["-keyout", &ca_key, "-out", &ca];
    openssl(&[&authority[..], &new_key, &authority_files].concat())?;
    let requesting = [
        "req",
        "-subj",
        "/CN=localhost",
        "-keyout",
        &key,
        "-out",
        &request,
    ];
    openssl(&[&requesting[..], &new_key].concat())?;
    let signing = [
        "x509",
        "-req",
        "-days",
        "2",
        "-CAcreateserial",
        "-in",
        &request,
    ];
    let signing_files = [
        "-CA", &ca, "-CAkey", &ca_key, "-out", &server, "-extfile", &names,
    ];
    openssl(&[&signing[..], &signing_files].concat())
}

fn openssl(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "openssl {}: {printed}",
        arguments[0]
    )))
}

fn start_flow(
    plan: &Plan,
    scratch: &Scratch,
    upstream: &TlsUpstream,
    workers: Option<u32>,
) -> io::Result<Setup> {
    let front = FlowProxy {
        binary: &plan.binary,
        scratch,
        target: format!("https://localhost:{}", upstream.front.address.port()),
        log_level: "WARNING",
        workers,
        ca_file: Some(upstream.ca_file.clone()),
    }
    .start()?;
    Ok(setup(FLOW, front))
}

fn start_front_nginx(scratch: &Scratch, upstream: &TlsUpstream) -> io::Result<Setup> {
    let verify = format!(
        "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost; \
         proxy_ssl_server_name on; proxy_ssl_session_reuse on;",
        upstream.ca_file.display()
    );
    let block = nginx_proxy_block("https", upstream.front.address, &verify);
    Ok(setup(NGINX, start_nginx(scratch, "tls-front", &block)?))
}

fn setup(name: &'static str, front: Front) -> Setup {
    Setup {
        name,
        address: front.address,
        process: front.process,
    }
}

/// Small responses, beside nginx.
fn rows(
    plan: &Plan,
    scratch: &Scratch,
    upstream: &TlsUpstream,
    report: &mut Report,
) -> io::Result<()> {
    let mut setups = vec![start_front_nginx(scratch, upstream)?];
    match start_flow(plan, scratch, upstream, None) {
        Ok(flow) => setups.push(flow),
        Err(error) => eprintln!("bench: flow-proxy is left out: {error}"),
    }
    for connections in [8, 32] {
        let results = rates::measure(plan, &setups, "/small", connections)?;
        let title = format!("TLS upstream, small responses, {connections} connections");
        let columns = [
            "",
            "req/s",
            "p50 ms",
            "p99 ms",
            "cpu us/req",
            "x nginx",
            "errors",
        ];
        let mut section = Section::new(title, &columns);
        let nginx_rate = results[NGINX].rate;
        for setup in &setups {
            let sample = results[setup.name];
            section.row(vec![
                setup.name.to_owned(),
                format!("{:.0}", sample.rate),
                ms(sample.p50_ns),
                ms(sample.p99_ns),
                one_decimal(sample.cpu_us),
                ratio(sample.rate, Some(nginx_rate)),
                format!("{}", sample.errors),
            ]);
        }
        report.add(section);
        let flow = results.get(FLOW).map(|sample| sample.rate / nginx_rate);
        let text = format!("TLS: rate at {connections}, times nginx's");
        report.at_least(&text, flow, 0.5);
    }
    Ok(())
}

/// What TLS costs a proxy beside time. `None`: requests failed, so the figure means nothing.
struct Costs {
    /// Resident memory in MiB after [`ALL_WORKERS`] connections have been used.
    rss_mib: Option<f64>,
    /// The handshakes of these connections, all made at once.
    burst: Handshakes,
    /// The handshakes where the upstream closes after each response.
    steady: Handshakes,
    streams: sse::Sample,
}

impl Costs {
    /// `fresh` serves only the streams, so that its peak memory is theirs.
    fn measure(
        plan: &Plan,
        upstream: &TlsUpstream,
        used: &Setup,
        fresh: &Setup,
    ) -> io::Result<Self> {
        count_handshakes(upstream)?;
        let errors = run_load(plan, used, "/counted", ALL_WORKERS)?;
        let rss_mib = used.process.rss_kib() as f64 / 1024.0;
        let burst = count_handshakes(upstream)?;
        run_load(plan, used, "/closing", 8)?;
        let steady = count_handshakes(upstream)?;
        Ok(Self {
            rss_mib: (errors == 0).then_some(rss_mib),
            burst,
            steady,
            streams: sse::sample(fresh, EVENTS)?,
        })
    }

    fn peak_rss_mib(&self) -> Option<f64> {
        let all_whole = self.streams.whole as usize == sse::STREAMS;
        all_whole.then_some(self.streams.peak_rss_mib)
    }
}

fn memory_and_resumption(
    plan: &Plan,
    scratch: &Scratch,
    upstream: &TlsUpstream,
    report: &mut Report,
) -> io::Result<()> {
    let nginx = Costs::measure(
        plan,
        upstream,
        &start_front_nginx(scratch, upstream)?,
        &start_front_nginx(scratch, upstream)?,
    )?;
    let mut all = vec![(NGINX, nginx)];
    let flow = start_flow(plan, scratch, upstream, None).and_then(|used| {
        Ok((
            used,
            start_flow(plan, scratch, upstream, Some(STREAM_WORKERS))?,
        ))
    });
    match flow {
        Ok((used, fresh)) => all.push((FLOW, Costs::measure(plan, upstream, &used, &fresh)?)),
        Err(error) => eprintln!("bench: flow-proxy with TLS is left out: {error}"),
    }
    report.add(costs_section(&all));
    let title = format!(
        "TLS upstream, {} SSE streams of {EVENTS} events",
        sse::STREAMS
    );
    let samples: HashMap<_, _> = all
        .iter()
        .map(|(name, costs)| (*name, costs.streams))
        .collect();
    let order: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    report.add(sse::section(title, &order, &samples));
    judge_costs(
        all.iter()
            .find(|(name, _)| *name == FLOW)
            .map(|(_, costs)| costs),
        report,
    );
    Ok(())
}

fn costs_section(all: &[(&'static str, Costs)]) -> Section {
    let title = "TLS upstream, memory and handshakes (full+resumed)";
    let columns = [
        "",
        "RSS MiB, 256 used",
        "peak, 500 streams",
        "256 at once",
        "one per request",
    ];
    let mut section = Section::new(title, &columns);
    for (name, costs) in all {
        section.row(vec![
            (*name).to_owned(),
            costs.rss_mib.map_or("-".to_owned(), one_decimal),
            costs.peak_rss_mib().map_or("-".to_owned(), one_decimal),
            costs.burst.to_string(),
            costs.steady.to_string(),
        ]);
    }
    section
}

fn judge_costs(flow: Option<&Costs>, report: &mut Report) {
    let rss = flow.and_then(|costs| costs.rss_mib);
    report.at_most("TLS: RSS, 256 workers used, MiB", rss, 48.0);
    let peak = flow.and_then(Costs::peak_rss_mib);
    report.at_most("TLS: peak RSS of 500 streams, MiB", peak, 64.0);
    let whole = flow.map(|costs| costs.streams.whole);
    let text = "TLS: streams that came whole";
    report.at_least(text, whole, sse::STREAMS as f64);
    let resumed = flow.and_then(|costs| costs.steady.resumed_share());
    let text = "TLS: new connections that resume a session, of all";
    report.at_least(text, resumed, 0.9);
}

/// Requests `path` for the length of a measurement. Returns how many requests failed.
fn run_load(plan: &Plan, setup: &Setup, path: &str, connections: usize) -> io::Result<u64> {
    let result = roles::load(&Load {
        address: setup.address,
        path: path.to_owned(),
        connections,
        duration: plan.duration,
    })?;
    if result.errors > 0 {
        eprintln!(
            "bench: {}: {path}: {} requests failed",
            setup.name, result.errors
        );
    }
    Ok(result.errors)
}

struct Handshakes {
    full: u64,
    resumed: u64,
}

impl Handshakes {
    fn resumed_share(&self) -> Option<f64> {
        let all = self.full + self.resumed;
        (all > 0).then(|| self.resumed as f64 / all as f64)
    }
}

impl std::fmt::Display for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}+{}", self.full, self.resumed)
    }
}

/// Counts the first requests of connections since the last call.
fn count_handshakes(upstream: &TlsUpstream) -> io::Result<Handshakes> {
    let log = fs::read_to_string(&upstream.handshakes)?;
    let count = |line: &str| log.lines().filter(|logged| *logged == line).count() as u64;
    let handshakes = Handshakes {
        full: count(". 1"),
        resumed: count("r 1"),
    };
    // nginx opens the file for appending, so it continues at the start of the emptied file.
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&upstream.handshakes)?;
    Ok(handshakes)
}
