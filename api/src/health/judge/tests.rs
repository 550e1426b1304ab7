//! Scripts of flapping, partitions and dead observers, played second by second.

use super::*;
use crate::health::{Probe, Rules};

/// A vantage point: its own probes with hysteresis over what it can see at each second.
#[derive(Default)]
struct Observer {
    probes: BTreeMap<String, Probe>,
}

/// Plays `seconds` of probes every second. `up(target, t)` is the truth, `sees(observer, t)` whether it sees anything, `speaks` whether
/// its word reaches the judge. Returns for every second who is down.
fn play(
    targets: &[(&str, &str)],
    observers: usize,
    seconds: u64,
    up: impl Fn(&str, u64) -> bool,
    sees: impl Fn(usize, u64) -> bool,
    speaks: impl Fn(usize, u64) -> bool,
) -> Vec<String> {
    let mut all: Vec<Observer> = (0..observers).map(|_| Observer::default()).collect();
    let mut judge = Judge::default();
    let opinions: Vec<Opinion<'_>> =
        targets.iter().map(|(key, group)| Opinion { key, group, hold: Duration::from_secs(5) }).collect();
    (0..seconds)
        .map(|t| {
            let mut votes: BTreeMap<String, Votes> = BTreeMap::new();
            for (i, observer) in all.iter_mut().enumerate() {
                for (key, _) in targets {
                    let probe = observer.probes.entry((*key).to_owned()).or_default();
                    probe.observe(up(key, t) && sees(i, t), &Rules::default());
                    if speaks(i, t) {
                        votes.entry((*key).to_owned()).or_default().add(probe.up());
                    }
                }
            }
            judge.judge(&opinions, &votes, Duration::from_secs(t)).down.into_iter().collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// Runs of the same, as `3*- 2*a`.
fn runs(seconds: &[String]) -> String {
    let word = |s: &String| if s.is_empty() { "-".to_owned() } else { s.replace(' ', "+") };
    let runs = seconds.chunk_by(|a, b| a == b).map(|run| format!("{}*{}", run.len(), word(&run[0])));
    runs.collect::<Vec<_>>().join(" ")
}

const FOUR: &[(&str, &str)] = &[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")];

#[test]
fn one_target_that_falls_is_out_after_three_probes_and_back_after_two() {
    let up = |key: &str, t: u64| key != "a" || !(10..20).contains(&t);
    let said = play(FOUR, 3, 30, up, |_, _| true, |_, _| true);
    assert_eq!(runs(&said), "12*- 9*a 9*-");
}

#[test]
fn a_target_that_flaps_faster_than_probes_count_never_moves() {
    let up = |key: &str, t: u64| key != "a" || !t.is_multiple_of(3);
    assert_eq!(runs(&play(FOUR, 3, 60, up, |_, _| true, |_, _| true)), "60*-");
}

#[test]
fn after_a_flip_a_target_stays_for_the_time_that_resolvers_keep_the_answer() {
    // Down for three seconds, up for two, and again.
    let up = |key: &str, t: u64| key != "a" || t % 5 >= 3;
    let said = play(FOUR, 1, 60, up, |_, _| true, |_, _| true);
    let flips: Vec<usize> = (1..said.len()).filter(|t| said[*t] != said[*t - 1]).collect();
    assert!(flips.len() > 2 && flips.windows(2).all(|w| w[1] - w[0] >= 5), "{flips:?}");
}

#[test]
fn one_vantage_point_that_is_cut_off_takes_nobody_out() {
    assert_eq!(runs(&play(FOUR, 3, 40, |_, _| true, |i, t| i != 0 || t < 5, |_, _| true)), "40*-", "two of three see");
    assert_eq!(runs(&play(FOUR, 2, 40, |_, _| true, |i, t| i != 0 || t < 5, |_, _| true)), "40*-", "one of two");
    let up = |key: &str, t: u64| key != "a" || t < 10;
    let said = play(FOUR, 3, 30, up, |i, t| i != 0 || t < 5, |_, _| true);
    assert_eq!(runs(&said), "12*- 18*a", "what is down by the others' word goes out all the same");
}

#[test]
fn the_hub_alone_with_a_blind_observer_keeps_everybody() {
    // The hub is cut off with one observer: from then on it hears only that one, which sees nothing.
    let said = play(FOUR, 3, 60, |_, _| true, |i, t| i != 0 || t < 10, |i, t| i == 0 || t < 10);
    assert_eq!(runs(&said), "60*-");
}

#[test]
fn what_went_out_one_by_one_comes_back_when_it_turns_out_to_be_the_observer() {
    // a is lost first, two seconds later everything: it was the uplink.
    let sees_late = |key: &str, t: u64| match key {
        "a" => t < 10,
        _ => t < 12,
    };
    assert_eq!(runs(&play(FOUR, 1, 40, sees_late, |_, _| true, |_, _| true)), "12*- 2*a 26*-");
}

#[test]
fn half_of_the_groups_may_go_but_not_more() {
    let up = |key: &str, t: u64| !(["a", "b"].contains(&key) && t >= 5);
    assert_eq!(runs(&play(FOUR, 2, 20, up, |_, _| true, |_, _| true)), "7*- 13*a+b");
    // A cluster is one group, however many endpoints it has.
    let uneven = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")];
    let up = |key: &str, t: u64| !(key.starts_with('a') && t >= 5);
    assert_eq!(runs(&play(&uneven, 2, 20, up, |_, _| true, |_, _| true)), "7*- 13*a1+a2+a3");
}

#[test]
fn silence_changes_nothing_and_a_tie_changes_nothing() {
    for (votes, says) in [
        ((0, 0), None),
        ((1, 0), Some(true)),
        ((0, 1), Some(false)),
        ((1, 1), None),
        ((2, 1), Some(true)),
        ((1, 2), Some(false)),
        ((2, 2), None),
        ((1, 3), Some(false)),
    ] {
        assert_eq!(Votes { up: votes.0, down: votes.1 }.verdict(), says, "{votes:?}");
    }
    let up = |key: &str, t: u64| key != "a" || t < 10;
    let said = play(FOUR, 2, 40, up, |_, _| true, |_, t| t < 20);
    assert_eq!(runs(&said), "12*- 28*a", "the last word stays");
}
