use super::*;
use crate::config::secrets;

fn configurations(entries: &[(&str, &str)]) -> Vec<Configuration> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, id)| {
            serde_json::json!({
                "name": name, "clientId": id, "clientSecret": "fake", "tenant": "fake"
            })
        })
        .collect();
    secrets::parse(serde_json::Value::from(entries).to_string().as_bytes()).unwrap()
}

fn abc() -> Balancer {
    Balancer::new(&configurations(&[("a", "a"), ("b", "b"), ("c", "c")]))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(balancer: &Balancer, now: Instant) -> String {
    balancer
        .selection(now, &[])
        .unwrap()
        .configuration
        .name
        .to_string()
}

/// Marks the configuration that is next as failed, as a failover does.
fn fail_next(balancer: &Balancer, now: Instant) -> Option<Event> {
    let selection = balancer.selection(now, &[]).unwrap();
    balancer.failed(&selection, now)
}

#[test]
fn turns_go_round_in_file_order_from_the_first() {
    let (balancer, now) = (abc(), Instant::now());
    let entries: String = (0..7).map(|_| name(&balancer, now)).collect();
    assert_eq!(entries, "abcabca");
}

#[test]
fn repeating_an_entry_gives_it_more_turns_and_shares_its_failures() {
    let balancer = Balancer::new(&configurations(&[("a", "a"), ("a2", "a"), ("b", "b")]));
    let now = Instant::now();
    assert_eq!(balancer.remaining(now), (3, 3));
    let event = fail_next(&balancer, now).unwrap();
    assert_eq!(
        event.to_string(),
        "Configuration 'a' marked as failed. Remaining: 1/3"
    );
    assert_eq!(name(&balancer, now), "b");
    assert_eq!(name(&balancer, now), "b");
}

#[test]
fn a_second_attempt_never_uses_the_same_credential() {
    let balancer = Balancer::new(&configurations(&[("a", "a"), ("a2", "a"), ("b", "b")]));
    let now = Instant::now();
    let first = balancer.selection(now, &[]).unwrap();
    let second = balancer
        .selection(now, std::slice::from_ref(&first))
        .unwrap();
    assert_eq!(&*second.configuration.name, "b");
    assert!(balancer.selection(now, &[first, second]).is_none());
}

#[test]
fn a_failed_credential_rests_a_minute_and_twice_as_long_at_each_repeat() {
    let balancer = Balancer::new(&configurations(&[("a", "a"), ("b", "b")]));
    let mut now = Instant::now();
    for rest in [60, 120, 240, 480, 900, 900] {
        while name(&balancer, now) != "b" {}
        fail_next(&balancer, now).expect("marked");
        let before = now + seconds(rest) - Duration::from_millis(1);
        assert_eq!(
            [name(&balancer, before), name(&balancer, before)],
            ["b", "b"],
            "{rest}"
        );
        now += seconds(rest);
        let selections = [name(&balancer, now), name(&balancer, now)];
        assert!(
            selections.contains(&"a".to_owned()),
            "{rest}: {selections:?}"
        );
    }
}

#[test]
fn one_request_tries_a_failed_credential_and_restores_it() {
    let (balancer, start) = (abc(), Instant::now());
    fail_next(&balancer, start);
    let now = start + seconds(60);
    let names = |count: usize| (0..count).map(|_| name(&balancer, now)).collect::<String>();
    assert_eq!(names(2), "bc");
    let probe = balancer.selection(now, &[]).unwrap();
    assert_eq!(&*probe.configuration.name, "a");
    assert_eq!(names(3), "bcb", "one request tries it, no other gets it");
    let event = balancer.accepted(&probe, now).unwrap();
    assert_eq!(
        event.to_string(),
        "Configuration 'a' restored. Remaining: 3/3"
    );
    drop(probe);
    assert_eq!(names(3), "cab");
    assert_eq!(balancer.remaining(now), (3, 3));
}

#[test]
fn a_trial_without_a_verdict_leaves_the_next_request_to_try() {
    let (balancer, start) = (abc(), Instant::now());
    fail_next(&balancer, start);
    let now = start + seconds(60);
    for _ in 0..3 {
        let selections: Vec<_> = (0..3)
            .map(|_| balancer.selection(now, &[]).unwrap())
            .collect();
        assert_eq!(
            selections
                .iter()
                .filter(|selection| &*selection.configuration.name == "a")
                .count(),
            1
        );
    }
}

#[test]
fn many_requests_in_flight_mark_a_credential_once() {
    let (balancer, now) = (abc(), Instant::now());
    let selections: Vec<_> = (0..30)
        .map(|_| balancer.selection(now, &[]).unwrap())
        .collect();
    let of_a = selections
        .iter()
        .filter(|selection| &*selection.configuration.name == "a");
    assert_eq!(
        of_a.filter_map(|selection| balancer.failed(selection, now))
            .count(),
        1
    );
    assert!(name(&balancer, now + seconds(60)) + &name(&balancer, now + seconds(60)) != "bc");
}

#[test]
fn an_answer_to_a_request_from_before_the_failure_restores_nothing() {
    let (balancer, now) = (abc(), Instant::now());
    let early = balancer.selection(now, &[]).unwrap();
    let late = (0..3)
        .map(|_| balancer.selection(now, &[]).unwrap())
        .last()
        .unwrap();
    assert_eq!(late.configuration.name, early.configuration.name);
    balancer.failed(&late, now).unwrap();
    assert!(balancer.accepted(&early, now).is_none());
    assert_eq!(balancer.remaining(now), (2, 3));
}

#[test]
fn a_limited_credential_rests_and_a_rest_is_never_shortened() {
    let (balancer, now) = (abc(), Instant::now());
    let selection = balancer.selection(now, &[]).unwrap();
    let event = balancer
        .limited(&selection, seconds(7), now, Announce::Now)
        .unwrap();
    let line = "Configuration 'a' rate limited, resting 7 s. Remaining: 2/3";
    assert_eq!(event.to_string(), line);
    assert!(
        balancer
            .limited(&selection, seconds(1), now, Announce::Now)
            .is_none(),
        "no news"
    );
    balancer.accepted(&selection, now);
    let before = now + seconds(7) - Duration::from_millis(1);
    assert_eq!(balancer.remaining(before), (2, 3));
    assert_eq!(balancer.remaining(now + seconds(7)), (3, 3));
}

#[test]
fn a_rest_that_is_to_be_told_later_counts_at_once() {
    let (balancer, now) = (abc(), Instant::now());
    let selection = balancer.selection(now, &[]).unwrap();
    assert!(
        balancer
            .limited(&selection, seconds(1), now, Announce::Later)
            .is_none()
    );
    assert_eq!(balancer.remaining(now), (2, 3));
    assert!(
        balancer
            .limited(&selection, seconds(1), now, Announce::Now)
            .is_some()
    );
}

#[test]
fn when_all_rest_the_one_whose_rest_ends_first_is_used() {
    let (balancer, now) = (abc(), Instant::now());
    for rest in [30, 10, 20] {
        let selection = balancer.selection(now, &[]).unwrap();
        balancer.limited(&selection, seconds(rest), now, Announce::Now);
    }
    assert_eq!(balancer.remaining(now).0, 0);
    assert_eq!([name(&balancer, now), name(&balancer, now)], ["b", "b"]);
    let first = balancer.selection(now, &[]).unwrap();
    assert!(
        balancer.selection(now, &[first]).is_none(),
        "a second attempt needs an available one"
    );
}

#[test]
fn a_reload_keeps_the_health_of_credentials_that_stay() {
    let (balancer, now) = (abc(), Instant::now());
    let old = balancer.selection(now, &[]).unwrap();
    balancer.failed(&old, now).unwrap();
    balancer.replace(&configurations(&[("new", "d"), ("renamed", "a")]));
    assert_eq!(balancer.remaining(now), (1, 2));
    assert_eq!([name(&balancer, now), name(&balancer, now)], ["new", "new"]);
    balancer.replace(&configurations(&[("new", "d")]));
    assert!(balancer.failed(&old, now).is_none(), "it is gone");
}

/// A small generator of pseudo-random numbers (Marsaglia's xorshift), seeded for repeatability.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What the balancer should believe, kept in the plainest way.
struct Model {
    until: Vec<Instant>,
}

#[test]
fn over_random_sequences_the_rules_hold() {
    for seed in 1..=400 {
        let mut random = Random(seed * 0x9e37_79b9);
        // Five turns on four credentials: the last one shares the first one's.
        let ids = ["a", "b", "c", "d", "a"];
        let entries: Vec<_> = ["0", "1", "2", "3", "4"].into_iter().zip(ids).collect();
        let balancer = Balancer::new(&configurations(&entries));
        let mut now = Instant::now();
        let mut model = Model {
            until: vec![now; 4],
        };
        for _ in 0..200 {
            random_step(&mut random, &balancer, &mut now, &mut model, seed);
        }
        // Every rest is over: turns are fair among all that are not being tried.
        now += seconds(3600);
        let mut counts = [0; 5];
        for _ in 0..50 {
            let selection = balancer.selection(now, &[]).unwrap();
            counts[selection.configuration.name.parse::<usize>().unwrap()] += 1;
        }
        assert_eq!(counts, [10; 5], "seed {seed}");
    }
}

fn random_step(
    random: &mut Random,
    balancer: &Balancer,
    now: &mut Instant,
    model: &mut Model,
    seed: u64,
) {
    let selection = balancer
        .selection(*now, &[])
        .expect("a first attempt is always made");
    let picked = credential_of(&selection);
    let is_available = |credential: usize| model.until[credential] <= *now;
    if !is_available(picked) {
        assert!(
            !(0..4).any(is_available),
            "seed {seed}: {picked} rests, another does not"
        );
        let first = model.until.iter().min().unwrap();
        assert_eq!(
            model.until[picked], *first,
            "seed {seed}: not the one whose rest ends first"
        );
    }
    match random.below(6) {
        0 => {
            let rest = seconds(random.below(20) as u64);
            balancer.limited(&selection, rest, *now, Announce::Now);
            let until = &mut model.until[picked];
            *until = (*until).max(*now + rest);
        }
        1 => {
            let before = balancer.remaining(*now);
            if let Some(until) = failed_until(balancer, &selection, *now) {
                assert!(
                    until >= model.until[picked].max(*now + FIRST_COOLDOWN),
                    "seed {seed}"
                );
                model.until[picked] = until;
            }
            assert!(balancer.remaining(*now).0 <= before.0, "seed {seed}");
        }
        2 if balancer.accepted(&selection, *now).is_some() => {
            // Restored: only a limit is left of the rest.
            let entry = selection.configuration.name.parse().unwrap();
            let limited = balancer.lock().health(entry).limited_until;
            model.until[picked] = limited.unwrap_or(*now);
        }
        3 => *now += Duration::from_millis(random.below(30_000) as u64),
        4 => assert_second_is_another(balancer, &selection, *now, model, seed),
        _ => {}
    }
}

/// Which of the four credentials it is.
fn credential_of(selection: &Selection) -> usize {
    selection.configuration.name.parse::<usize>().unwrap() % 4
}

/// Reports a failure. If it counts, the end of the rest: without an epoch in the way, a minute at least.
fn failed_until(balancer: &Balancer, selection: &Selection, now: Instant) -> Option<Instant> {
    balancer.failed(selection, now)?;
    let entry = selection.configuration.name.parse().unwrap();
    let until = balancer.lock().health(entry).cooldown_until();
    Some(until.expect("it rests"))
}

fn assert_second_is_another(
    balancer: &Balancer,
    first: &Selection,
    now: Instant,
    model: &Model,
    seed: u64,
) {
    let Some(second) = balancer.selection(now, std::slice::from_ref(first)) else {
        return;
    };
    let second = credential_of(&second);
    assert_ne!(
        second,
        credential_of(first),
        "seed {seed}: the same credential"
    );
    assert!(model.until[second] <= now, "seed {seed}: it rests");
}
