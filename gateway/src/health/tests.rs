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

#[test]
fn a_cluster_is_out_when_half_of_its_endpoints_fail_and_not_merely_those_of_one_of_several_services() {
    // Services as failing endpoints of all.
    type Case = (&'static [(usize, usize)], bool);
    let cases: [Case; 19] = [
        (&[], false),
        (&[(0, 1)], false),
        (&[(1, 1)], true),
        (&[(1, 2)], false),
        (&[(2, 2)], true),
        (&[(2, 4)], true),
        (&[(2, 5)], false),
        (&[(3, 5)], true),
        // One of two is dead, however large it is.
        (&[(4, 4), (0, 2)], false),
        (&[(40, 40), (0, 1), (0, 1)], false),
        (&[(1, 1), (0, 1)], false),
        // Both are.
        (&[(4, 4), (1, 2)], true),
        (&[(1, 1), (1, 1)], true),
        (&[(4, 4), (1, 3)], false),
        // Two of three, two of five.
        (&[(2, 2), (2, 2), (0, 1)], true),
        (&[(9, 9), (9, 9), (0, 1), (0, 1), (0, 1)], false),
        (&[(9, 9), (9, 9), (1, 2), (0, 1), (0, 1)], true),
        // Most services, but few endpoints.
        (&[(1, 1), (1, 1), (0, 9)], false),
        // Half of each: a zone of it is gone.
        (&[(1, 2), (1, 2), (1, 2)], true),
    ];
    for (services, out) in cases {
        let mut tally = Tally::default();
        for (failing, of) in services {
            tally.count(*failing, *of);
            (tally.failing, tally.endpoints) = (tally.failing + failing, tally.endpoints + of);
        }
        assert_eq!(tally.is_ill(), out, "{services:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_falls_again_soon_stays_out_longer() {
    let (start, cluster) = (Instant::now(), Outage::default());
    assert_eq!(cluster.weigh(true, start), Some(true));
    assert_eq!(cluster.weigh(false, at(start, 1999)), None);
    assert_eq!(cluster.weigh(false, at(start, 2000)), Some(false));
    assert_eq!(cluster.weigh(true, at(start, 3000)), Some(true));
    assert_eq!(cluster.weigh(false, at(start, 6999)), None);
    assert_eq!(cluster.weigh(false, at(start, 7000)), Some(false));
    assert_eq!(cluster.weigh(true, at(start, 60_000)), Some(true));
    assert_eq!(cluster.weigh(false, at(start, 62_000)), Some(false), "long ago is forgotten");
}

/// Services of cluster `eu` by how many endpoints they have; and of the hub's own network, where `own`.
fn in_use(services: &[usize], own: bool) -> (Prober, Vec<Vec<Arc<Endpoint>>>) {
    use crate::table::{Part, Target, Upstream, UpstreamId};
    use atoll_api::names::ServiceName;
    let facts = serde_json::from_value(serde_json::json!({"name": "eu", "spec": {"environment": "prod"}})).unwrap();
    let facts = Some(Arc::new(facts)).filter(|_| !own);
    let target = |s: usize, e: usize| {
        let address = format!("10.0.{s}.{e}").parse().unwrap();
        Target { address, port: 80, door: None, alone: false, zone: None, pod: None, failing: false }
    };
    let upstream = |(s, count): (usize, &usize)| {
        let name = ServiceName::new("shop", format!("s{s}"));
        let id = match own {
            true => UpstreamId::Local(name, 80, None),
            false => UpstreamId::Set("prod".to_owned(), name, 80, None),
        };
        let endpoints = (0..*count).map(|e| target(s, e)).collect();
        let clusters = vec![Part { cluster: facts.clone(), endpoints }];
        Arc::new(Upstream { id, h2: false, udp: false, tls: None, clusters, names: Box::default(), policy: None })
    };
    let upstreams: Vec<_> = services.iter().enumerate().map(upstream).collect();
    let endpoints = Arc::new(Endpoints::default());
    let live = endpoints.enliven(&upstreams, (&[], &[]), &Topology::default());
    let of = |live: &Arc<crate::endpoint::Live>| {
        live.parts[0].endpoints.iter().map(|e| Arc::clone(&e.endpoint)).collect::<Vec<_>>()
    };
    let all = live.iter().map(of).collect();
    (Prober::new(endpoints, Metrics::register(&prometheus::Registry::new(), false).unwrap()), all)
}

#[tokio::test(start_paused = true)]
async fn a_service_none_of_whose_endpoints_is_well_is_out_where_its_cluster_stays() {
    let (prober, all) = in_use(&[4, 2], false);
    let (health, by_cluster) = (&prober.health, prober.health.endpoints.by_cluster());
    let eu = by_cluster.values().next().unwrap();
    let out = || (eu.state.outage.is_out(), eu.services.iter().map(|s| s.outage.is_out()).collect::<Vec<_>>());
    let version = health.version();
    all[0].iter().take(3).for_each(|e| health.failed(e, Failure::Connect));
    assert_eq!(out(), (false, vec![false, false]), "one of it is well");
    health.failed(&all[0][3], Failure::Connect);
    assert_eq!(out(), (false, vec![true, false]));
    assert!(health.version() > version, "choices are made anew");
    assert!(all[0].iter().all(|e| e.falls() > 0), "nobody waits there");
    health.failed(&all[1][0], Failure::Connect);
    assert_eq!(out(), (true, vec![true, false]), "half of each service fails: the cluster is gone");
    all.iter().flatten().for_each(|e| health.ok(e, None));
    assert_eq!(out(), (true, vec![true, false]), "not before its time");
    tokio::time::advance(Duration::from_secs(2)).await;
    health.weigh_cluster(eu);
    assert_eq!(out(), (false, vec![false, false]));
}

#[tokio::test(start_paused = true)]
async fn a_suspicion_looks_at_the_service_itself_and_at_one_of_each_other_first() {
    let (mut prober, all) = in_use(&[3, 100, 2, 1], false);
    prober.health.failed(&all[0][0], Failure::Connect);
    let mut asked = vec![0; all.len()];
    while let Ok(e) = prober.suspects.try_recv() {
        asked[all.iter().position(|of| of.iter().any(|other| Arc::ptr_eq(other, &e))).unwrap()] += 1;
    }
    assert_eq!(asked, [2, OTHERS_MAX - 3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn so_many_of_a_services_endpoints_are_ejected_for_errors_whoever_else_there_is() {
    let outlier = care::Outlier { errors: Some(3), ..outlier() };
    let care = Arc::new(Care { outlier, ..Care::default() });
    for own in [true, false] {
        let (prober, all) = in_use(&[4, 1, 40], own);
        for e in all.iter().flatten() {
            e.watch_with(&care);
        }
        for e in all[..2].iter().flatten() {
            (0..3).for_each(|_| prober.health.answered(e, None, true));
        }
        let now = Instant::now();
        let out: Vec<usize> = all.iter().map(|of| of.iter().filter(|e| e.state().is_ejected(now)).count()).collect();
        assert_eq!(out, [2, 0, 0], "half of its own, and not the only one; own network: {own}");
    }
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
    let cluster = Outage::default();
    assert!(cluster.ease(start) >= 1.0);
    assert_eq!(cluster.weigh(true, start), Some(true));
    assert_eq!(cluster.weigh(false, at(start, 3000)), Some(false));
    let eases = [3000, 8000, 12_000, 13_000, 20_000].map(|ms| (cluster.ease(at(start, ms)) * 100.0).round());
    assert_eq!(eases, [10.0, 50.0, 90.0, 100.0, 100.0]);
}
