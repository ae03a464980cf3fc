use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;

use super::Ledger;
use super::counts::{Counts, NONE, OTHER};
use super::histogram::{FIRST_BYTE, Histogram};
use super::minutes::Minutes;
use super::recent::{Attempt, Ended};
use crate::proxy::access_log::{AccessLog, ExchangeEnd};
use crate::proxy::request_id::RequestId;
use crate::proxy::usage::tokens::{Tokens, Usage};

fn log() -> AccessLog {
    let id = RequestId::Client(b"x".as_slice().into());
    AccessLog {
        status: 200,
        attempts: 1,
        ..AccessLog::new(Method::POST, id, Instant::now())
    }
}

fn ended(log: &AccessLog) -> Ended {
    let mut ended = Ended::of(log.clone(), b"/v1/x");
    ended.at = UNIX_EPOCH + Duration::from_secs(600 * 60);
    ended.duration = Duration::from_millis(70);
    ended
}

fn named<'c, T>(list: &'c [super::counts::Named<T>], name: &str) -> Option<&'c T> {
    let one = list.iter().find(|one| *one.name == *name);
    one.map(|one| &one.counts)
}

fn counted(logs: &[AccessLog]) -> Counts {
    let ledger = Ledger::new();
    let none = std::iter::empty;
    logs.iter().for_each(|log| ledger.add(ended(log), none()));
    ledger.counts()
}

#[test]
fn tokens_and_cost_add_up_and_what_is_not_told_is_unknown() {
    let tokens = Tokens {
        input: 10,
        cached: 4,
        output: u64::MAX - 1,
    };
    let counts = counted(&[
        AccessLog {
            usage: Usage::Known(tokens),
            cost: Some(0.5),
            ..log()
        },
        AccessLog {
            usage: Usage::Known(tokens),
            ..log()
        },
        AccessLog {
            usage: Usage::Unknown,
            ..log()
        },
        log(),
    ]);
    let total = counts.total;
    assert_eq!(total.requests, 4);
    assert_eq!((total.known, total.unknown), (2, 1));
    assert_eq!((total.tokens.input, total.tokens.output), (20, u64::MAX));
    assert_eq!((total.cost, total.cost_unknown), (0.5, 2));
    let minute = counts.minutes.until(ended(&log()).at).last().unwrap();
    assert_eq!((minute.requests, minute.output_tokens), (4, u64::MAX));
}

#[test]
fn only_served_models_and_forwarded_clients_get_a_name_and_not_too_many() {
    let mut logs: Vec<AccessLog> = (0..300)
        .map(|number| AccessLog {
            model: Some(format!("model-{number}").into()),
            agent: Some(format!("agent-{number}").into()),
            ..log()
        })
        .collect();
    logs.insert(
        0,
        AccessLog {
            status: 404,
            attempts: 0,
            model: Some("no-such-model".into()),
            agent: Some("scanner/1".into()),
            ..log()
        },
    );
    let counts = counted(&logs);
    assert!(named(&counts.models, "no-such-model").is_none());
    assert!(named(&counts.clients, "scanner/1").is_none());
    assert_eq!(counts.models.len(), 51 - 1);
    assert_eq!(counts.clients.len(), 201 - 1);
    let others = named(&counts.models, OTHER).unwrap().tally.requests;
    assert_eq!(others, 300 - 49 + 1);
    assert_eq!(counts.recent.len(), 20);
    let last = counts.recent.back().unwrap();
    assert_eq!(last.log.model.as_deref(), Some("model-299"));
}

#[test]
fn sums_of_costs_stay_finite() {
    let costly = AccessLog {
        cost: Some(f64::MAX),
        usage: Usage::Unknown,
        ..log()
    };
    let counts = counted(&[costly.clone(), costly]);
    assert_eq!(counts.total.cost, f64::MAX);
    assert_eq!(counts.configs[0].counts.models[0].1.1, f64::MAX);
    assert_eq!(counts.models[0].counts.tally.cost, f64::MAX);
}

#[test]
fn statuses_of_a_hostile_upstream_are_bounded() {
    let logs: Vec<AccessLog> = (100..900)
        .map(|status| AccessLog { status, ..log() })
        .collect();
    let counts = counted(&logs);
    let none = named(&counts.configs, NONE).unwrap();
    assert_eq!(none.outcomes.len(), 65);
    let sum: u64 = none.outcomes.iter().map(|(_, count)| count).sum();
    assert_eq!(sum, 800);
}

#[test]
fn attempts_count_for_their_own_configuration() {
    let ledger = Ledger::new();
    let (dead, well): (Arc<str>, Arc<str>) = ("dead".into(), "well".into());
    let attempt = |config, verdict, is_rejected| Attempt {
        config,
        verdict,
        is_rejected,
    };
    let attempts = [
        attempt(&dead, "credential", true),
        attempt(&well, "ok", false),
    ];
    let log = AccessLog {
        attempts: 2,
        ..log()
    };
    ledger.add(ended(&log), attempts.into_iter());
    let counts = ledger.counts();
    let dead = named(&counts.configs, "dead").unwrap();
    assert_eq!(dead.attempts, [("credential", 1)]);
    assert_eq!((dead.rejected, dead.tally.requests), (1, 0));
    let well = named(&counts.configs, "well").unwrap();
    assert_eq!((well.rejected, &well.attempts[..]), (0, &[("ok", 1)][..]));
    assert_eq!(counts.failed_over, 1);
}

#[test]
fn percentiles_are_of_the_last_hundred_good_responses() {
    let time = |milliseconds, status| AccessLog {
        status,
        model: Some("m".into()),
        time_to_first_byte: Some(Duration::from_millis(milliseconds)),
        ..log()
    };
    let mut logs: Vec<_> = (0..100).map(|_| time(9000, 200)).collect();
    logs.extend((1..=100).map(|number| time(number, 200)));
    logs.extend((0..50).map(|_| time(7000, 500)));
    let counts = counted(&logs);
    let model = named(&counts.models, "m").unwrap();
    assert_eq!(model.percentiles(), Some((50, 95)));
    let one = counted(&[time(7, 200)]);
    assert_eq!(named(&one.models, "m").unwrap().percentiles(), Some((7, 7)));
    assert_eq!(
        counted(&[log()]).models[0].counts.percentiles(),
        Some((70, 70))
    );
}

#[test]
fn the_hour_has_sixty_minutes_and_forgets_older_ones() {
    let at = |minute: u64| UNIX_EPOCH + Duration::from_secs(minute * 60 + 59);
    let mut minutes = Minutes::default();
    for minute in [1000, 1059, 1060, 1061] {
        minutes.at(at(minute)).requests += 1;
    }
    let of = |now: SystemTime| -> Vec<(u64, u64)> {
        let minutes = minutes.until(now);
        minutes
            .map(|minute| (minute.number, minute.requests))
            .collect()
    };
    let hour = of(at(1060));
    assert_eq!(hour.len(), 60);
    assert_eq!(
        (hour[0], hour[58], hour[59]),
        ((1001, 0), (1059, 1), (1060, 1))
    );
    assert_eq!(of(at(1061)).iter().map(|minute| minute.1).sum::<u64>(), 3);
    assert_eq!(of(at(2000)).iter().map(|minute| minute.1).sum::<u64>(), 0);
    assert_eq!(of(UNIX_EPOCH).len(), 60);
}

#[test]
fn a_histogram_counts_up_to_each_bound() {
    let mut histogram = Histogram::new(&FIRST_BYTE);
    for milliseconds in [0, 50, 51, 120_000, 120_001] {
        histogram.add(Duration::from_millis(milliseconds));
    }
    let cumulated = histogram.cumulated();
    assert_eq!((cumulated[0], cumulated[1]), (2, 3));
    assert_eq!((cumulated[11], cumulated[12]), (4, 5));
    assert!((histogram.seconds() - 240.102).abs() < 1e-9);
}

#[test]
fn a_client_that_leaves_is_no_error_and_a_broken_stream_is() {
    for (status, end, is_error) in [
        (200, ExchangeEnd::Ok, false),
        (200, ExchangeEnd::ClientGone, false),
        (499, ExchangeEnd::ClientGone, false),
        (404, ExchangeEnd::Ok, true),
        (200, ExchangeEnd::Incomplete, true),
        (200, ExchangeEnd::UpstreamBroke, true),
        (499, ExchangeEnd::ClientTimeout, true),
    ] {
        let log = AccessLog {
            status,
            end,
            ..log()
        };
        assert_eq!(log.is_error(), is_error, "{status} {end}");
    }
}
