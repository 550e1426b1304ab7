//! Cutting and folding deltas: what goes in comes out, in any size of piece.

use atoll_api::facts::Facts;

use super::*;

fn facts(items: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    for (key, value) in items {
        facts.put(*key, value);
    }
    facts
}

fn pass(receiver: &mut Receiver, deltas: Vec<v1::Delta>) -> Result<Option<Change>, Refused> {
    let mut last = Ok(None);
    for delta in deltas {
        last = receiver.take(delta);
        if last.is_err() {
            break;
        }
    }
    last
}

#[test]
fn a_receiver_ends_where_the_sender_is_and_only_changes_travel() {
    let (mut sender, mut receiver) = (Sender::new(3), Receiver::default());
    for (set, travels) in [
        (vec![("a", "1"), ("b", "2")], 2),
        (vec![("a", "1"), ("b", "3"), ("c", "4")], 2),
        (vec![("c", "4")], 2),
        (vec![("c", "4")], 0),
        (vec![], 1),
    ] {
        let set = facts(&set);
        let deltas = sender.update(&set);
        assert_eq!(deltas.iter().map(|d| d.upserts.len() + d.removed.len()).sum::<usize>(), travels);
        pass(&mut receiver, deltas).unwrap();
        assert_eq!(receiver.facts().digest(), set.digest());
        assert!(receiver.agrees(&sender.digest()));
    }
    assert_eq!(receiver.version(), Some(Version { epoch: 3, generation: 4 }));
}

#[test]
fn an_empty_first_set_is_a_full_delta_too() {
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::with(facts(&[("old", "1")]), 1));
    let deltas = sender.update(&Facts::default());
    assert!(pass(&mut receiver, deltas).unwrap().is_some_and(|c| c.full));
    assert!(receiver.facts().is_empty());
}

#[test]
fn a_large_set_travels_in_chunks_that_fit_a_message() {
    let mut set = Facts::default();
    for i in 0..40 {
        set.put(format!("k{i}"), &"x".repeat(100_000));
    }
    set.put("giant", &"x".repeat(ITEM_BYTES_MAX));
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::default());
    let deltas = sender.update(&set);
    assert!(deltas.len() >= 4, "{}", deltas.len());
    for delta in &deltas {
        assert!(prost::Message::encoded_len(delta) <= CHUNK_BYTES_MAX + 4096);
    }
    assert_eq!(receiver.take(deltas[0].clone()), Ok(None));
    assert!(receiver.facts().is_empty(), "half a delta is never seen");
    pass(&mut receiver, deltas[1..].to_vec()).unwrap();
    assert_eq!(receiver.facts().len(), 40, "all but the one that no message holds");
    assert!(sender.update(&set).is_empty());
}

#[test]
fn a_delta_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let first = facts(&[("a", "1")]);
    let second = facts(&[("a", "1"), ("b", "2")]);
    type Spoil = fn(&mut v1::Delta);
    type Expected = fn(&Refused) -> bool;
    let cases: [(&str, Spoil, Expected); 4] = [
        ("other base", |d| d.base = 77, |r| matches!(r, Refused::Base { .. })),
        ("other digest", |d| d.digest = vec![0; 32].into(), |r| matches!(r, Refused::Digest)),
        ("item lost", |d| d.upserts.clear(), |r| matches!(r, Refused::Digest)),
        (
            "older epoch",
            |d| d.version.as_mut().unwrap().epoch = 4,
            |r| matches!(r, Refused::OlderEpoch { have: 5, got: 4 }),
        ),
    ];
    for (name, spoil, expected) in cases {
        let (mut sender, mut receiver) = (Sender::new(5), Receiver::new(2));
        pass(&mut receiver, sender.update(&first)).unwrap();
        let mut deltas = sender.update(&second);
        spoil(&mut deltas[0]);
        let refused = pass(&mut receiver, deltas).unwrap_err();
        assert!(expected(&refused), "{name}: {refused}");
        assert_eq!(refused.wants_resync(), name != "older epoch", "{name}");
        assert_eq!(receiver.facts().digest(), first.digest(), "{name}");
        assert!(!receiver.agrees(&sender.digest()), "{name}");
        sender.forget();
        pass(&mut receiver, sender.update(&second)).unwrap();
        assert!(receiver.agrees(&sender.digest()), "{name}: a full one heals");
    }
}

#[test]
fn a_set_that_grows_over_its_bound_is_refused_as_is_a_change_of_many_small_things() {
    let mut sender = Sender::new(1);
    let mut receiver = Receiver { bytes_max: 1000, ..Receiver::new(0) };
    let mut all = facts(&[]);
    for i in 0..4 {
        all.put_json(format!("bundle/shop/{i}"), vec![b'7'; 100].into());
        pass(&mut receiver, sender.update(&all)).unwrap();
    }
    let held = receiver.facts().digest();
    for i in 4..8 {
        all.put_json(format!("bundle/shop/{i}"), vec![b'7'; 100].into());
    }
    assert_eq!(pass(&mut receiver, sender.update(&all)), Err(Refused::TooMuch), "each change alone is small");
    assert_eq!(receiver.facts().digest(), held);
    let version = Some(v1::Version { epoch: 1, generation: 9 });
    let small = v1::Delta { version, more: true, removed: vec![String::new(); 100], ..v1::Delta::default() };
    assert_eq!(receiver.take(small), Err(Refused::TooMuch), "what is empty costs something, too");
    sender.forget();
    assert!(pass(&mut receiver, sender.update(&facts(&[("a", "1")]))).unwrap().is_some(), "a smaller set is taken");
    assert_eq!(receiver.facts().len(), 1);
}

#[test]
fn chunks_of_two_deltas_are_not_mixed() {
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::default());
    let mut half = sender.update(&facts(&[("a", "1")]));
    half[0].more = true;
    pass(&mut receiver, half).unwrap();
    assert_eq!(pass(&mut receiver, sender.update(&facts(&[("a", "2")]))), Err(Refused::Mixed));
}

#[test]
fn whoever_follows_gets_the_next_step_the_whole_or_what_was_missed() {
    let sets = [facts(&[("a", "1")]), facts(&[("a", "2"), ("b", "1")]), facts(&[("b", "1")]), facts(&[("b", "1")])];
    let (mut before, mut states) = (Facts::default(), Vec::new());
    for (base, set) in (0u64..).zip(sets) {
        let version = Version { epoch: 3, generation: base + 1 };
        states.push(Shared::new(set.clone(), version, base, before.diff(&set)));
        before = set;
    }
    for (name, seen, messages_full) in [
        ("every one", vec![0, 1, 2, 3], vec![true, false, false]),
        ("from the second on", vec![1, 2], vec![true, false]),
        ("one missed", vec![0, 2], vec![true, false]),
        ("the last twice", vec![2, 3, 3], vec![true]),
    ] {
        let (mut sender, mut receiver, mut full) = (Sender::new(0), Receiver::default(), Vec::new());
        for at in seen {
            for delta in sender.follow(&states[at]).iter() {
                full.push(delta.full);
                receiver.take(delta.clone()).unwrap();
            }
            assert!(receiver.agrees(&states[at].facts().digest().to_bytes()), "{name}: state {at}");
        }
        assert_eq!(full, messages_full, "{name}");
    }
    let (one, other) = (Sender::new(0).follow(&states[1]), Sender::new(0).follow(&states[1]));
    assert!(Arc::ptr_eq(&one, &other), "the whole is cut once");
}
