//! A member's way through its phases, told by heartbeats and the clock.

use super::*;

const MISSED: Duration = Duration::from_millis(10_500);

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

struct Case {
    name: &'static str,
    /// Seconds after the hub's start of: last word, last good word, now.
    heard: Option<u64>,
    good: Option<u64>,
    now: u64,
    before: Option<bool>,
    phase: Phase,
    ready: bool,
    reason: Option<&'static str>,
}

#[tokio::test(start_paused = true)]
async fn a_member_goes_from_joining_to_lost_by_its_heartbeats() {
    let started = Instant::now();
    let cases = [
        Case {
            name: "new",
            heard: None,
            good: None,
            now: 3,
            before: None,
            phase: Phase::Joining,
            ready: false,
            reason: Some("Joining"),
        },
        Case {
            name: "never came",
            heard: None,
            good: None,
            now: 300,
            before: None,
            phase: Phase::Joining,
            ready: false,
            reason: Some("Joining"),
        },
        Case {
            name: "beats",
            heard: Some(100),
            good: Some(100),
            now: 103,
            before: None,
            phase: Phase::Ready,
            ready: true,
            reason: Some("Beats"),
        },
        Case {
            name: "one missed",
            heard: Some(100),
            good: Some(100),
            now: 109,
            before: Some(true),
            phase: Phase::Ready,
            ready: true,
            reason: Some("Beats"),
        },
        Case {
            name: "two missed",
            heard: Some(100),
            good: Some(100),
            now: 111,
            before: Some(true),
            phase: Phase::Suspect,
            ready: false,
            reason: Some("HeartbeatsMissed"),
        },
        Case {
            name: "gone",
            heard: Some(100),
            good: Some(100),
            now: 131,
            before: Some(true),
            phase: Phase::Lost,
            ready: false,
            reason: Some("Lost"),
        },
        Case {
            name: "cut off from its agent",
            heard: Some(130),
            good: Some(100),
            now: 131,
            before: Some(true),
            phase: Phase::Lost,
            ready: false,
            reason: Some("APIServerUnreachable"),
        },
        Case {
            name: "hub restarted",
            heard: None,
            good: None,
            now: 5,
            before: Some(true),
            phase: Phase::Joining,
            ready: true,
            reason: None,
        },
        Case {
            name: "hub restarted, member down",
            heard: None,
            good: None,
            now: 5,
            before: Some(false),
            phase: Phase::Joining,
            ready: false,
            reason: None,
        },
        Case {
            name: "hub restarted long ago",
            heard: None,
            good: None,
            now: 20,
            before: Some(true),
            phase: Phase::Suspect,
            ready: false,
            reason: Some("HeartbeatsMissed"),
        },
    ];
    for case in cases {
        let at = |n: u64| started + s(n);
        let beat = Beat { heard: case.heard.map(at), good: case.good.map(at), ..Beat::default() };
        let seen = Seen { beat, before: (case.before, case.before), ..Seen::default() };
        let verdict = judge(&seen, started, MISSED, at(case.now));
        assert_eq!((verdict.phase, verdict.ready), (case.phase, case.ready), "{}", case.name);
        assert_eq!(verdict.conditions.first().map(|c| c.reason), case.reason, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_starts_the_time_of_being_good_anew() {
    let started = Instant::now();
    let mut beat = Beat::default();
    for at in [0, 5, 10, 40, 45] {
        beat.take(true, true, String::new(), started + s(at), MISSED);
    }
    let verdict = judge(&Seen { beat, ..Seen::default() }, started, MISSED, started + s(46));
    assert_eq!(verdict.good_for, s(6));
    assert!(verdict.dns_ready);
}

#[tokio::test]
async fn who_beats_is_not_said_to_be_silent() {
    let started = Instant::now();
    let at = started + s(100);
    for (heard, reason) in [(Some(at), "NotReady"), (None, "AgentSilent")] {
        let beat = Beat { heard, good: Some(started), ..Beat::default() };
        let verdict = judge(&Seen { beat, probed: Some(true), ..Seen::default() }, started, MISSED, at);
        let said: Vec<_> = verdict.conditions.iter().map(|c| (c.kind, c.reason)).collect();
        assert!(said.contains(&("DNSReady", reason)), "{said:?}");
    }
}

#[tokio::test]
async fn a_member_of_names_only_is_what_the_dns_servers_say_of_it() {
    let now = Instant::now();
    for (has_dns, probed, ready, reason) in [
        (true, None, true, "NamesOnly"),
        (true, Some(true), true, "NamesOnly"),
        (true, Some(false), false, "Silent"),
        (false, None, false, "NoServers"),
    ] {
        let verdict = judge(&Seen { mode: SyncMode::None, has_dns, probed, ..Seen::default() }, now, MISSED, now);
        assert_eq!((verdict.ready, verdict.conditions[0].reason), (ready, reason), "{has_dns} {probed:?}");
    }
}
