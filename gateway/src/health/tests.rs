//! What results do to endpoints and clusters, as cases.

use super::*;

const OPEN: Result<Proof, Failure> = Ok(Proof::Connection);
const SAID: Result<Proof, Failure> = Ok(Proof::Octets);
const NOBODY: Result<Proof, Failure> = Err(Failure::Connect);
const SILENT: Result<Proof, Failure> = Err(Failure::FirstByte);

fn outlier() -> care::Outlier {
    care::Outlier::default()
}

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn two_failed_requests_eject_an_endpoint_and_an_answer_takes_it_back() {
    let start = Instant::now();
    let mut state = EndpointState::default();
    assert_eq!(state.failed(Failure::Connect, &outlier(), start), Turn::Worse);
    assert!(state.is_usable(start), "one failure is no habit");
    assert_eq!(state.failed(Failure::Connect, &outlier(), start), Turn::None);
    assert!(!state.is_usable(at(start, 4999)));
    assert!(state.is_usable(at(start, 5000)), "it gets another chance");
    assert_eq!(state.answered(None, None, &outlier(), at(start, 5000)), Turn::Better);
    assert!(!state.is_failing());
}

#[tokio::test(start_paused = true)]
async fn a_probe_forgives_a_failed_connect_but_not_silence() {
    let (start, rules) = (Instant::now(), Rules::default());
    for (failure, forgiven) in [(Failure::Connect, true), (Failure::FirstByte, false)] {
        let mut state = EndpointState::default();
        state.failed(failure, &outlier(), start);
        state.failed(failure, &outlier(), start);
        state.probed(OPEN, &rules, &Care::default(), at(start, 1000));
        assert_eq!(state.is_usable(at(start, 1000)), forgiven, "{failure:?}");
        assert_eq!(state.is_failing(), !forgiven, "{failure:?}");
        state.probed(OPEN, &rules, &Care::default(), at(start, 6000));
        assert!(!state.is_failing(), "{failure:?} after its time");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_take_an_endpoint_out_after_three_and_bring_it_back_after_two() {
    let (start, rules) = (Instant::now(), Rules::default());
    let mut state = EndpointState::default();
    let mut seen = String::new();
    for c in "xx.xxx..".chars() {
        state.probed(if c == '.' { OPEN } else { NOBODY }, &rules, &Care::default(), start);
        seen.push(if state.is_usable(start) { 'U' } else { 'd' });
    }
    assert_eq!(seen, "UUUUUddU");
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_of_a_suspicion_counts_like_a_failed_request() {
    let (start, rules, care) = (Instant::now(), Rules::default(), Care::default());
    for found in [NOBODY, SILENT] {
        let mut state = EndpointState::default();
        assert!(state.suspect() && !state.suspect(), "it is news once");
        assert_eq!(state.begin_check(false, start), Some(Look::Ask));
        assert_eq!(state.begin_check(false, start), None, "one at a time");
        assert_eq!(state.probed(found, &rules, &care, at(start, 700)), Turn::Worse, "{found:?}");
    }
    let mut state = EndpointState::default();
    assert_eq!(state.begin_probe(false, start), Some(Look::Connect));
    state.suspect();
    assert_eq!(state.begin_check(false, start), None, "a probe is under way");
    assert_eq!(state.probed(NOBODY, &rules, &care, start), Turn::Worse, "which may settle it");
    let mut state = EndpointState::default();
    state.begin_probe(false, start);
    state.suspect();
    assert_eq!(state.probed(OPEN, &rules, &care, start), Turn::None);
    assert_eq!(state.begin_probe(false, start), Some(Look::Ask), "a connection settles nothing");
    assert_eq!(state.probed(SILENT, &rules, &care, at(start, 700)), Turn::Worse);
}

#[tokio::test(start_paused = true)]
async fn whoever_says_anything_is_no_suspect_however_long_a_request_takes() {
    let (start, rules, care) = (Instant::now(), Rules::default(), Care::default());
    for found in [SAID, OPEN] {
        let mut state = EndpointState::default();
        state.suspect();
        state.begin_check(false, start);
        assert_eq!(state.probed(found, &rules, &care, at(start, 50)), Turn::None, "{found:?}");
        assert!(!state.is_failing(), "{found:?}");
    }
    // An answer to anybody is one to the suspicion, before and while it is checked.
    let mut state = EndpointState::default();
    state.suspect();
    state.answered(None, None, &outlier(), at(start, 10));
    assert!(state.is_heard_since(start) && state.begin_check(false, at(start, 10)).is_none());
    state.suspect();
    state.begin_check(false, at(start, 20));
    state.answered(None, None, &outlier(), at(start, 500));
    assert_eq!(state.probed(SILENT, &rules, &care, at(start, 720)), Turn::None);
    assert!(!state.is_failing());
}

#[tokio::test(start_paused = true)]
async fn who_was_silent_is_back_once_it_says_something_and_a_policy_says_how_it_is_asked() {
    let (start, rules, care) = (Instant::now(), Rules::default(), Care::default());
    let mut state = EndpointState::default();
    state.failed(Failure::FirstByte, &outlier(), start);
    state.failed(Failure::FirstByte, &outlier(), start);
    assert_eq!(state.begin_probe(false, at(start, 1000)), Some(Look::Ask));
    assert_eq!(state.probed(SAID, &rules, &care, at(start, 1000)), Turn::Better);
    assert!(state.is_usable(at(start, 1000)));
    state.suspect();
    assert_eq!(state.begin_check(true, at(start, 1000)), Some(Look::Check));
}

#[tokio::test(start_paused = true)]
async fn recent_answers_make_probes_needless() {
    let start = Instant::now();
    let mut state = EndpointState::default();
    state.answered(None, None, &outlier(), start);
    assert!(state.begin_probe(false, at(start, 1000)).is_none());
    assert!(state.begin_probe(false, at(start, 2000)).is_some());
    state.probed(OPEN, &Rules::default(), &Care::default(), at(start, 2000));
    assert!(state.begin_probe(false, at(start, 4000)).is_none());
    assert!(state.begin_probe(false, at(start, 5000)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_out_when_half_of_its_endpoints_fail() {
    for (failing, in_use, out) in [
        (0, 1, false),
        (1, 1, true),
        (1, 2, false),
        (2, 2, true),
        (2, 4, true),
        (2, 5, false),
        (3, 5, true),
        (0, 0, false),
    ] {
        let cluster = ClusterState::new("a".parse().unwrap());
        cluster.weigh(failing, in_use, Instant::now());
        assert_eq!(cluster.is_out(), out, "{failing} of {in_use}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_falls_again_soon_stays_out_longer() {
    let (start, cluster) = (Instant::now(), ClusterState::new("a".parse().unwrap()));
    assert_eq!(cluster.weigh(1, 1, start), Some(true));
    assert_eq!(cluster.weigh(0, 1, at(start, 1999)), None);
    assert_eq!(cluster.weigh(0, 1, at(start, 2000)), Some(false));
    assert_eq!(cluster.weigh(1, 1, at(start, 3000)), Some(true));
    assert_eq!(cluster.weigh(0, 1, at(start, 6999)), None);
    assert_eq!(cluster.weigh(0, 1, at(start, 7000)), Some(false));
    assert_eq!(cluster.weigh(1, 1, at(start, 60_000)), Some(true));
    assert_eq!(cluster.weigh(0, 1, at(start, 62_000)), Some(false), "long ago is forgotten");
}

#[tokio::test(start_paused = true)]
async fn answers_with_errors_eject_where_that_is_wanted_and_allowed_and_a_good_one_forgives() {
    let start = Instant::now();
    let three = care::Outlier { errors: Some(3), ..outlier() };
    for (name, outlier, allowed, usable) in [
        ("not wanted", outlier(), true, true),
        ("too many are out already", three, false, true),
        ("three in a row", three, true, false),
    ] {
        let mut state = EndpointState::default();
        for _ in 0..3 {
            assert!(state.is_usable(start), "{name}");
            assert_eq!(state.answered(None, Some(allowed), &outlier, start), Turn::None, "{name}: it is there");
        }
        assert_eq!(state.is_usable(start), usable, "{name}");
        assert!(state.is_usable(at(start, 5000)), "{name}: it gets another chance");
        state.answered(None, None, &outlier, start);
        assert!(state.is_usable(start), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_back_gets_its_part_within_ten_seconds() {
    let start = Instant::now();
    let cluster = ClusterState::new("eu".parse().unwrap());
    assert!(cluster.ease(start) >= 1.0);
    assert_eq!(cluster.weigh(2, 3, start), Some(true));
    assert_eq!(cluster.weigh(0, 3, at(start, 3000)), Some(false));
    let eases = [3000, 8000, 12_000, 13_000, 20_000].map(|ms| (cluster.ease(at(start, ms)) * 100.0).round());
    assert_eq!(eases, [10.0, 50.0, 90.0, 100.0, 100.0]);
}
