//! The cache's rules: times to live, prefetch, failures, octets there and back, its bound under a flood.

use std::sync::Weak;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, NULL, SOA, TXT};
use hickory_proto::rr::{RData, Record};

use super::*;
use crate::forward::Failed;
use crate::names::absolute;

const PLAIN: Bits = Bits { dnssec: false, unchecked: false, validated: false };

fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

fn a(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(n(owner), ttl, RData::A(A::new(10, 0, 0, 1)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    Record::from_rdata(n("example"), ttl, RData::SOA(SOA::new(n("ns.example"), n("h.example"), 1, 2, 3, 4, minimum)))
}

fn word(cached: &Cached) -> &'static str {
    match cached {
        Cached::Fresh(_) => "fresh",
        Cached::Ending(_) => "ending",
        Cached::Stale(_) => "stale",
        Cached::None => "none",
    }
}

#[test]
fn an_answer_is_good_for_its_time_then_stale_then_gone() {
    let start = Instant::now();
    let positive = |ttl| Kept { answers: vec![a("a.example", ttl)], ..Kept::default() };
    let negative = Kept { nxdomain: true, authorities: vec![soa(60, 7)], ..Kept::default() };
    for (what, kept, ttl) in [
        ("positive", positive(10), 10),
        ("the smaller of a SOA's ttl and minimum", negative, 7),
        ("without a SOA", Kept { nxdomain: true, ..Kept::default() }, 0),
        ("of ttl zero", positive(0), 0),
        ("of ttl 2^31", positive(1 << 31), 0),
        ("of ttl 2^32 - 1", positive(u32::MAX), 0),
        ("of ttl 2^31 - 1", positive(i32::MAX as u32), 86_400),
    ] {
        let cache = Cache::new(1 << 20, Duration::from_secs(3600));
        cache.put(1, &n("a.example"), RecordType::A, PLAIN, &kept.settled(), start);
        let at =
            |secs: u64| word(&cache.get(1, &n("A.example"), RecordType::A, PLAIN, start + Duration::from_secs(secs)));
        if ttl > 0 {
            assert_eq!(at(0), "fresh", "{what}");
        }
        assert_eq!((at(ttl), at(ttl + 3599), at(ttl + 3600)), ("stale", "stale", "none"), "{what}");
        assert_eq!(word(&cache.get(2, &n("a.example"), RecordType::A, PLAIN, start)), "none", "whose else");
        let secure = Bits { dnssec: true, ..PLAIN };
        assert_eq!(word(&cache.get(1, &n("a.example"), RecordType::A, secure, start)), "none", "with DO");
    }
}

#[test]
fn that_a_name_does_not_exist_holds_for_every_type_until_one_is_there() {
    let (start, cache) = (Instant::now(), Cache::new(1 << 20, Duration::from_secs(3600)));
    let get = |kind| word(&cache.get(1, &n("x.example"), kind, PLAIN, start));
    cache.put(
        1,
        &n("x.example"),
        RecordType::A,
        PLAIN,
        &Kept { answers: vec![a("x.example", 60)], ..Kept::default() },
        start,
    );
    let gone = Kept { nxdomain: true, authorities: vec![soa(60, 60)], ..Kept::default() };
    cache.put(1, &n("x.example"), RecordType::TXT, PLAIN, &gone, start);
    assert_eq!((get(RecordType::AAAA), get(RecordType::TXT)), ("fresh", "fresh"));
    assert!(cache.absent(1, &n("x.example"), PLAIN, start).is_some());
    cache.put(
        1,
        &n("x.example"),
        RecordType::A,
        PLAIN,
        &Kept { answers: vec![a("x.example", 60)], ..Kept::default() },
        start,
    );
    assert_eq!((get(RecordType::A), get(RecordType::AAAA)), ("fresh", "none"));
}

#[test]
fn one_caller_renews_an_answer_in_the_last_tenth_of_its_time() {
    let (start, cache) = (Instant::now(), Cache::new(1 << 20, Duration::from_secs(3600)));
    let kept = Kept { answers: vec![a("a.example", 100)], ..Kept::default() };
    let get = |secs| cache.get(1, &n("a.example"), RecordType::A, PLAIN, start + Duration::from_secs(secs));
    cache.put(1, &n("a.example"), RecordType::A, PLAIN, &kept, start);
    assert_eq!([89, 90, 91, 99].map(|s| word(&get(s))), ["fresh", "ending", "fresh", "fresh"]);
    let Cached::Fresh(aged) = get(91) else { panic!("it is fresh") };
    assert_eq!(aged.answers[0].ttl, 9);
    cache.put(1, &n("a.example"), RecordType::A, PLAIN, &kept, start + Duration::from_secs(91));
    assert_eq!([180, 181, 182].map(|s| word(&get(s))), ["fresh", "ending", "fresh"]);
}

#[test]
fn a_failure_holds_twice_as_long_each_time_and_five_minutes_at_most() {
    let (failures, key) = (Failures::new(), Key::new(1, &n("a.example"), RecordType::A, PLAIN));
    let mut now = Instant::now();
    let held = |now: Instant| (1..1000).find(|s| failures.of(&key, now + Duration::from_secs(*s)).is_none()).unwrap();
    for want in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        failures.note(key.clone(), Failed::Code(ResponseCode::ServFail), Duration::from_secs(900), now);
        assert_eq!(held(now), want);
        now += Duration::from_secs(want);
    }
    failures.note(key.clone(), Failed::TimedOut, Duration::from_secs(5), now);
    assert_eq!(held(now), 5, "as long as the caller says");
    failures.clear(&key);
    failures.note(key.clone(), Failed::TimedOut, Duration::from_secs(5), now);
    assert_eq!(held(now), 1, "an answer ends it");
    now += Duration::from_secs(60);
    failures.note(key.clone(), Failed::TimedOut, Duration::from_secs(5), now);
    assert_eq!(held(now), 1, "one that is long over counts no more");
}

#[test]
fn octets_hold_all_of_an_answer_and_a_set_has_one_time_to_live() {
    let kept = Kept {
        nxdomain: true,
        secure: true,
        answers: vec![
            a("a.example", 60),
            Record::from_rdata(n("a.example"), 5, RData::A(A::new(10, 0, 0, 2))),
            Record::from_rdata(n("a.example"), 7, RData::TXT(TXT::new(vec!["x".repeat(255), String::new()]))),
            Record::from_rdata(
                n("a.example"),
                9,
                RData::Unknown { code: RecordType::Unknown(65_280), rdata: NULL::with(vec![0; 300]) },
            ),
        ],
        authorities: vec![soa(900, 30)],
        additionals: vec![a("b.example", 1)],
        next: Some(n("c.example")),
        spent_ms: 0,
    }
    .settled();
    assert_eq!(kept.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [5, 5, 7, 9]);
    assert_eq!(kept.authorities[0].ttl, 30);
    assert_eq!(Kept::read(&kept.octets().unwrap()), Some(kept.clone()));
    let plain = Kept { next: None, nxdomain: false, ..kept };
    assert_eq!(Kept::read(&plain.octets().unwrap()), Some(plain));
}

/// Bytes of the entries that are alive, by whoever still holds them.
fn alive(entries: &mut Vec<(usize, Weak<Entry>)>) -> usize {
    entries.retain(|(_, entry)| entry.strong_count() > 0);
    entries.iter().map(|(bytes, _)| bytes).sum()
}

#[test]
fn a_flood_of_random_names_overshoots_the_bound_by_a_tenth_at_most() {
    const BYTES_MAX: u64 = 1 << 20;
    const MOST: u64 = BYTES_MAX + BYTES_MAX / 10;
    let (start, cache) = (Instant::now(), Cache::new(BYTES_MAX, Duration::from_secs(3600)));
    let mut entries = Vec::new();
    let mut number = 0_u32;
    // Small ones for the most part, now and then one of 24 KiB.
    let mut one = |entries: &mut Vec<(usize, Weak<Entry>)>| {
        let name = n(&format!("x{}.shop.svc.prod-eu.atoll.internal", number.wrapping_mul(2_654_435_761)));
        let many = if number.is_multiple_of(97) { 1500 } else { 1 };
        let answers = (0..many)
            .map(|i| Record::from_rdata(name.clone(), 60, RData::A(A(std::net::Ipv4Addr::from_bits(i)))))
            .collect();
        cache.put(1, &name, RecordType::A, PLAIN, &Kept { answers, ..Kept::default() }, start);
        let key = Key::new(1, &name, RecordType::A, PLAIN);
        if let Some(entry) = cache.entries.get(&key) {
            entries.push((weight(&key, &entry) as usize, Arc::downgrade(&entry)));
        }
        number += 1;
    };
    let mut most = 0;
    for round in 0..600 {
        (0..50).for_each(|_| one(&mut entries));
        // What was taken out is freed once no thread is looking at the cache's table, and threads of other tests that do may just have lost
        // their core: the flood goes on until they have it back. A cache that keeps too much keeps it for good.
        for _ in 0..2000 {
            if alive(&mut entries) as u64 <= MOST {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
            one(&mut entries);
        }
        most = most.max(alive(&mut entries));
        assert!(most as u64 <= MOST, "round {round}: {most} of {BYTES_MAX}");
    }
    assert!(most as u64 >= BYTES_MAX * 8 / 10, "the room is used: {most} of {BYTES_MAX}");
}
