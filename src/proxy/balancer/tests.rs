use super::*;
use crate::config::file::Pipes;
use crate::config::secrets::{self, SecretsArray, SecretsSource};

const ACCEPTED: Judgement = Judgement {
    verdict: Verdict::Request,
    is_accepted: true,
};

fn configurations(entries: &[(&str, &str)]) -> Vec<Configuration> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, id)| {
            serde_json::json!({
                "name": name, "clientId": id, "clientSecret": "fake", "tenant": "fake"
            })
        })
        .collect();
    let text = serde_json::Value::from(entries).to_string();
    let array = SecretsArray::new("test".to_owned(), text.as_ref());
    secrets::load(&SecretsSource::Array(array), Pipes::Reject)
        .unwrap()
        .configurations
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const TICK: Duration = Duration::from_millis(1);

/// A balancer with its clock, which each step moves a little.
struct Bench {
    balancer: Balancer,
    now: Instant,
}

impl Bench {
    fn new(names: &str) -> Bench {
        let names: Vec<String> = names.chars().map(String::from).collect();
        let entries: Vec<_> = names.iter().map(|name| (&**name, &**name)).collect();
        Bench::with(&entries)
    }

    fn with(entries: &[(&str, &str)]) -> Bench {
        let balancer = Balancer::new(&configurations(entries));
        let now = balancer.start + TICK;
        Bench { balancer, now }
    }

    fn select(
        &mut self,
        tried: &[Selection],
        model: Option<&str>,
        asks_resting: bool,
    ) -> Option<Selection> {
        self.now += TICK;
        let wanted = Wanted {
            model,
            asks_resting,
            avoids_probe: false,
        };
        self.balancer.select(self.now, tried, wanted)
    }

    fn first(&mut self, model: Option<&str>) -> Selection {
        self.select(&[], model, false)
            .expect("a first attempt is always made")
    }

    fn name(&mut self, model: Option<&str>) -> String {
        self.first(model).configuration.name.to_string()
    }

    fn names(&mut self, count: usize, model: Option<&str>) -> String {
        (0..count).map(|_| self.name(model)).collect()
    }

    /// Selects until it is the turn of `name`.
    fn turn_of(&mut self, name: &str, model: Option<&str>) -> Selection {
        for _ in 0..20 {
            let selection = self.first(model);
            if *selection.configuration.name == *name {
                return selection;
            }
        }
        panic!("{name} gets no turn");
    }

    fn record(
        &mut self,
        selection: &mut Selection,
        judgement: Judgement,
        model: Option<&str>,
    ) -> String {
        self.now += TICK;
        let event = self.balancer.record(selection, judgement, model, self.now);
        event.map_or_else(String::new, |event| event.to_string())
    }

    /// A request with the credential of `name` gets this verdict.
    fn judge(&mut self, name: &str, verdict: Verdict, model: Option<&str>) -> String {
        let mut selection = self.turn_of(name, None);
        let judgement = Judgement {
            verdict,
            is_accepted: false,
        };
        self.record(&mut selection, judgement, model)
    }

    fn prove(&mut self, selection: &Selection, verdict: Verdict, model: Option<&str>) -> String {
        self.now += TICK;
        let event = self.balancer.prove(selection, verdict, model, self.now);
        event.map_or_else(String::new, |event| event.to_string())
    }

    fn available(&self) -> usize {
        self.balancer.available(self.now).0
    }
}

fn limit(rest: u64) -> Verdict {
    Verdict::Limit {
        rest: seconds(rest),
        of_model: false,
    }
}

#[test]
fn turns_go_round_in_file_order_from_the_first() {
    assert_eq!(Bench::new("abc").names(7, None), "abcabca");
}

#[test]
fn repeating_an_entry_gives_it_more_turns_and_shares_its_health() {
    let mut bench = Bench::with(&[("a", "a"), ("A", "a"), ("b", "b")]);
    assert_eq!(bench.names(6, None), "aAbaAb");
    assert_eq!(
        bench.judge("a", Verdict::Dead, None),
        "Configuration 'a' marked as failed. Remaining: 1/3"
    );
    assert_eq!(bench.names(3, None), "bbb");
}

#[test]
fn each_credential_is_asked_at_most_once() {
    let mut bench = Bench::with(&[("a", "a"), ("A", "a"), ("b", "b")]);
    let first = bench.first(None);
    let second = bench
        .select(std::slice::from_ref(&first), None, true)
        .unwrap();
    assert_eq!(&*second.configuration.name, "b");
    assert!(bench.select(&[first, second], None, true).is_none());
}

#[test]
fn a_failed_credential_rests_a_minute_and_twice_as_long_at_each_repeat() {
    let mut bench = Bench::new("ab");
    for rest in [60, 120, 240, 480, 900, 900] {
        assert!(
            bench
                .judge("a", Verdict::Dead, None)
                .contains("marked as failed")
        );
        let marked = bench.now;
        bench.now = marked + seconds(rest) - TICK * 10;
        assert_eq!(bench.names(2, None), "bb", "{rest} s");
        bench.now = marked + seconds(rest);
    }
    let mut probe = bench.turn_of("a", None);
    assert_eq!(
        bench.record(&mut probe, ACCEPTED, None),
        "Configuration 'a' restored. Remaining: 2/2"
    );
    drop(probe);
    bench.judge("a", Verdict::Dead, None);
    bench.now += seconds(60);
    assert_eq!(bench.name(None).len(), 1, "the doubling has ended");
    bench.turn_of("a", None);
}

#[test]
fn one_request_tries_a_failed_credential() {
    let mut bench = Bench::new("abc");
    bench.judge("a", Verdict::Dead, None);
    bench.now += seconds(60);
    let mut probe = bench.turn_of("a", None);
    assert!(!bench.names(6, None).contains('a'), "one request tries it");
    probe.end_probe();
    bench.turn_of("a", None);
}

#[test]
fn a_streamed_body_is_given_to_a_failed_credential_last() {
    let mut bench = Bench::new("ab");
    bench.judge("a", Verdict::Dead, None);
    bench.now += seconds(60);
    let streamed = Wanted {
        model: None,
        asks_resting: false,
        avoids_probe: true,
    };
    for _ in 0..3 {
        bench.now += TICK;
        let selection = bench.balancer.select(bench.now, &[], streamed).unwrap();
        assert_eq!(&*selection.configuration.name, "b");
    }
    bench.judge("b", limit(60), None);
    bench.now += TICK;
    let selection = bench.balancer.select(bench.now, &[], streamed).unwrap();
    assert_eq!(&*selection.configuration.name, "a");
}

#[test]
fn a_response_to_a_request_from_before_a_change_says_nothing_new() {
    let mut bench = Bench::new("ab");
    let mut late = bench.turn_of("a", None);
    let mut later = bench.turn_of("a", None);
    assert!(bench.judge("a", Verdict::Dead, None).contains("failed"));
    let dead = Judgement {
        verdict: Verdict::Dead,
        is_accepted: false,
    };
    bench.now += seconds(60);
    assert_eq!(bench.record(&mut late, dead, None), "");
    let mut probe = bench.turn_of("a", None);
    assert!(
        bench
            .record(&mut probe, ACCEPTED, None)
            .contains("restored")
    );
    assert_eq!(
        bench.record(&mut later, dead, None),
        "",
        "it was restored since"
    );
}

#[test]
fn a_limited_credential_rests_for_the_time_told() {
    let mut bench = Bench::new("abc");
    assert_eq!(
        bench.judge("a", limit(7), None),
        "Configuration 'a' rate limited, resting 7 s. Remaining: 2/3"
    );
    let marked = bench.now;
    assert_eq!(bench.names(4, None), "bcbc");
    bench.now = marked + seconds(7);
    assert_eq!(bench.name(None), "a");
}

#[test]
fn a_rest_is_never_shortened_and_told_once() {
    let mut bench = Bench::new("ab");
    bench.judge("a", limit(60), None);
    let marked = bench.now;
    bench.judge("b", limit(100), None);
    // All rest: the one whose rest ends first is asked, and limited again.
    for rest in [5, 20] {
        let mut again = bench.first(None);
        assert_eq!(&*again.configuration.name, "a");
        let judgement = Judgement {
            verdict: limit(rest),
            is_accepted: true,
        };
        assert_eq!(bench.record(&mut again, judgement, None), "");
    }
    bench.now = marked + seconds(60) - TICK;
    assert_eq!(bench.available(), 0);
    bench.now = marked + seconds(60);
    assert_eq!(bench.available(), 1);
}

#[test]
fn an_accepted_response_ends_a_rest_that_began_before_its_request() {
    let mut bench = Bench::new("ab");
    let mut early = bench.turn_of("a", None);
    bench.judge("a", limit(60), None);
    bench.judge("b", limit(100), None);
    bench.record(&mut early, ACCEPTED, None);
    assert_eq!(
        bench.available(),
        0,
        "that request was sent before the limit"
    );
    let mut last_resort = bench.first(None);
    assert_eq!(&*last_resort.configuration.name, "a");
    bench.record(&mut last_resort, ACCEPTED, None);
    assert_eq!(bench.available(), 1);
}

#[test]
fn a_budget_rests_five_minutes_and_twice_as_long_at_each_repeat_up_to_an_hour() {
    let mut bench = Bench::new("ab");
    for (rest, text) in [
        (300, "300"),
        (600, "600"),
        (1200, "1200"),
        (2400, "2400"),
        (3600, "3600"),
        (3600, "3600"),
    ] {
        assert_eq!(
            bench.judge("a", Verdict::Budget, None),
            format!("Configuration 'a' budget exceeded, resting {text} s. Remaining: 1/2")
        );
        let marked = bench.now;
        bench.now = marked + seconds(rest) - TICK * 10;
        assert_eq!(bench.names(2, None), "bb");
        bench.now = marked + seconds(rest);
    }
    let mut accepted = bench.turn_of("a", None);
    bench.record(&mut accepted, ACCEPTED, None);
    drop(accepted);
    assert!(
        bench
            .judge("a", Verdict::Budget, None)
            .contains("resting 300 s")
    );
}

#[test]
fn a_busy_credential_rests_until_one_of_its_requests_ends_or_a_second() {
    let mut bench = Bench::new("ab");
    let in_flight = bench.turn_of("a", None);
    let busy = Judgement {
        verdict: Verdict::Busy,
        is_accepted: true,
    };
    let mut rejected = bench.turn_of("a", None);
    bench.record(&mut rejected, busy, None);
    drop(rejected);
    assert_eq!(bench.names(2, None), "bb", "its own end makes no place");
    drop(in_flight);
    assert!(bench.names(2, None).contains('a'));
    let mut rejected = bench.turn_of("a", None);
    bench.record(&mut rejected, busy, None);
    let marked = bench.now;
    bench.now = marked + seconds(1) - TICK * 10;
    assert_eq!(bench.names(2, None), "bb");
    bench.now = marked + seconds(1) + TICK;
    assert!(bench.names(2, None).contains('a'));
}

#[test]
fn a_model_that_a_credential_may_not_use_rests_alone() {
    let mut bench = Bench::new("ab");
    let denied = Verdict::Model { marks: true };
    assert_eq!(
        bench.judge("a", denied, Some("vip")),
        "Configuration 'a' may not use model 'vip', passed over for it for 600 s"
    );
    let marked = bench.now;
    assert!(bench.balancer.has_model_rests(bench.now));
    assert_eq!(bench.names(3, Some("vip")), "bbb");
    assert!(bench.names(4, Some("other")).contains('a'));
    assert!(bench.names(4, None).contains('a'));
    assert_eq!(bench.available(), 2);
    bench.now = marked + seconds(600);
    assert!(!bench.balancer.has_model_rests(bench.now));
    assert!(bench.names(2, Some("vip")).contains('a'));
}

#[test]
fn a_model_that_is_not_known_or_another_one_leaves_no_rest() {
    let mut bench = Bench::new("ab");
    assert_eq!(bench.judge("a", Verdict::Model { marks: true }, None), "");
    assert_eq!(
        bench.judge("a", Verdict::Model { marks: false }, Some("vip")),
        ""
    );
    let of_model = Verdict::Limit {
        rest: seconds(9),
        of_model: true,
    };
    assert_eq!(bench.judge("a", of_model, None), "");
    assert!(!bench.balancer.has_model_rests(bench.now));
    assert_eq!(
        bench.judge("a", of_model, Some("vip")),
        "Configuration 'a' rate limited for model 'vip', resting 9 s"
    );
}

#[test]
fn what_needs_proof_marks_only_where_it_is_proven() {
    let mut bench = Bench::new("ab");
    let mut rejected = bench.turn_of("a", None);
    let credential = Judgement {
        verdict: Verdict::Credential,
        is_accepted: false,
    };
    assert_eq!(bench.record(&mut rejected, credential, Some("m")), "");
    assert_eq!(bench.available(), 2);
    assert_eq!(
        bench.prove(&rejected, Verdict::Credential, Some("m")),
        "Configuration 'a' marked as failed. Remaining: 1/2"
    );
    let forbidden = bench.turn_of("b", None);
    assert_eq!(
        bench.prove(&forbidden, Verdict::Forbidden, Some("m")),
        "Configuration 'b' may not use model 'm', passed over for it for 60 s"
    );
    assert_eq!(bench.prove(&forbidden, Verdict::Forbidden, None), "");
    assert_eq!(bench.available(), 1);
}

#[test]
fn a_first_attempt_is_made_with_the_rest_that_ends_first_and_a_denied_model_last() {
    let mut bench = Bench::new("abc");
    bench.judge("a", Verdict::Model { marks: true }, Some("vip"));
    bench.judge("b", limit(100), None);
    bench.judge("c", limit(50), None);
    assert_eq!(bench.name(Some("vip")), "c");
    let c = bench.first(Some("vip"));
    let b = bench
        .select(std::slice::from_ref(&c), Some("vip"), true)
        .unwrap();
    assert_eq!(&*b.configuration.name, "b");
    let tried = [c, b];
    assert!(
        bench.select(&tried, Some("vip"), true).is_none(),
        "never a denied one"
    );
    assert!(bench.balancer.is_exhausted(&tried, Some("vip"), bench.now));
    assert!(
        !bench
            .balancer
            .is_exhausted(&tried, Some("other"), bench.now)
    );
    let [c, b] = tried;
    drop((c, b));
    let only_denied = &mut Bench::new("a");
    only_denied.judge("a", Verdict::Model { marks: true }, Some("vip"));
    assert_eq!(only_denied.name(Some("vip")), "a");
}

#[test]
fn a_further_attempt_leaves_those_at_rest_alone_unless_it_is_told_to_ask_them() {
    let mut bench = Bench::new("ab");
    bench.judge("b", limit(100), None);
    let first = bench.first(None);
    let tried = std::slice::from_ref(&first);
    assert!(bench.select(tried, None, false).is_none());
    assert!(bench.select(tried, None, true).is_some());
}

#[test]
fn at_most_64_rests_for_models_are_kept_and_the_first_to_end_goes() {
    let mut bench = Bench::new("ab");
    let of_model = |rest| Verdict::Limit {
        rest: seconds(rest),
        of_model: true,
    };
    for number in 0..65 {
        let rest = if number == 10 { 20 } else { 100 + number };
        bench.judge("a", of_model(rest), Some(&format!("m{number}")));
    }
    assert!(
        bench.names(2, Some("m10")).contains('a'),
        "the first to end"
    );
    for number in (0..65).filter(|number| *number != 10) {
        assert_eq!(
            bench.names(2, Some(&format!("m{number}"))),
            "bb",
            "{number}"
        );
    }
}

#[test]
fn the_first_rest_to_end_among_those_that_may_have_the_model_is_told() {
    let mut bench = Bench::new("abc");
    assert_eq!(
        bench.balancer.first_available_in(None, bench.now),
        Duration::ZERO
    );
    bench.judge("a", Verdict::Model { marks: true }, Some("vip"));
    bench.judge("b", limit(100), None);
    bench.judge("c", limit(50), None);
    let first = |bench: &Bench, model| bench.balancer.first_available_in(model, bench.now);
    assert_eq!(first(&bench, None), Duration::ZERO);
    let rest = first(&bench, Some("vip"));
    assert!(rest > seconds(49) && rest <= seconds(50), "{rest:?}");
    assert_eq!(bench.balancer.first_limit_ends_in(None, bench.now), None);
    assert_eq!(
        bench.balancer.first_limit_ends_in(Some("vip"), bench.now),
        Some(rest)
    );
    let mut mixed = Bench::new("ab");
    mixed.judge("a", limit(10), None);
    mixed.judge("b", Verdict::Budget, None);
    assert_eq!(mixed.balancer.first_limit_ends_in(None, mixed.now), None);
}

#[test]
fn ending_rests_leaves_failures() {
    let mut bench = Bench::new("abc");
    bench.judge("a", Verdict::Dead, None);
    bench.judge("b", limit(100), None);
    bench.judge("c", Verdict::Model { marks: true }, Some("vip"));
    bench.balancer.end_rests();
    assert_eq!(bench.available(), 2);
    assert!(!bench.balancer.has_model_rests(bench.now));
    assert_eq!(bench.names(4, Some("vip")).matches('a').count(), 0);
}

#[test]
fn a_reload_keeps_the_health_of_credentials_and_the_turns_of_entries() {
    let mut bench = Bench::new("abc");
    bench.judge("b", limit(100), None);
    bench.name(None);
    bench.balancer.replace(&configurations(&[
        ("d", "d"),
        ("a", "a"),
        ("b", "b"),
        ("e", "e"),
    ]));
    assert_eq!(bench.names(5, None), "deade");
    assert_eq!(bench.balancer.available(bench.now), (3, 4));
}

#[test]
fn a_response_for_a_credential_that_is_gone_marks_nothing() {
    let mut bench = Bench::new("ab");
    let mut gone = bench.turn_of("a", None);
    bench.balancer.replace(&configurations(&[("b", "b")]));
    let dead = Judgement {
        verdict: Verdict::Dead,
        is_accepted: false,
    };
    assert_eq!(bench.record(&mut gone, dead, None), "");
    assert_eq!(bench.prove(&gone, Verdict::Credential, None), "");
}

#[test]
fn it_is_degraded_from_a_rejection_until_a_credential_is_accepted() {
    let mut bench = Bench::new("ab");
    let not_of_credential = Judgement {
        verdict: Verdict::Provider,
        is_accepted: false,
    };
    for (verdict, is_accepted, is_degraded) in [
        (Verdict::Credential, false, true),
        (not_of_credential.verdict, false, true),
        (Verdict::Request, true, false),
        (Verdict::Request, false, false),
        (limit(5), true, false),
        (Verdict::Budget, false, true),
    ] {
        let mut selection = bench.first(None);
        let judgement = Judgement {
            verdict,
            is_accepted,
        };
        bench.record(&mut selection, judgement, None);
        assert_eq!(bench.balancer.is_degraded(), is_degraded, "{verdict:?}");
    }
}
