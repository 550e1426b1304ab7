//! What is computed from its arguments alone, and what serves without asking the control plane.
//!
//! In: what is product in each file. `PURE` and `DATA_PATHS` name files or folders; a name that is gone is a breach, so that
//! the lists stay true.

use crate::{
    Breach,
    tree::{Tree, lines_with},
};

/// Modules that are functions of their arguments.
const PURE: &[&str] = &["api/src/"];

/// What a pure module never uses: runtime, client, clock, chance, log.
const IMPURE: &[&str] = &[
    "tokio::",
    "tokio_util::",
    "futures::",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::api::Api",
    "kube::runtime",
    "Instant::now(",
    "SystemTime::now(",
    "Timestamp::now(",
    "Zoned::now(",
    "rand::",
    "tracing::",
    "std::fs",
    "std::net::Tcp",
    "std::net::UdpSocket",
    "std::thread",
];

/// What answers queries and requests.
const DATA_PATHS: &[&str] = &[];

/// What a data path never names; it reads a snapshot instead.
const CONTROL: &[&str] = &["kube::", "tonic::", "atoll_wire::"];

/// Time, randomness and what lies outside are arguments.
pub(crate) fn pure_stays_pure(tree: &Tree) -> Vec<Breach> {
    never(tree, PURE, IMPURE, "make it an argument, or move the impure part out to the caller")
}

/// A query or a request never waits for the control plane.
pub(crate) fn data_paths(tree: &Tree) -> Vec<Breach> {
    never(tree, DATA_PATHS, CONTROL, "read it from the snapshot (ArcSwap) that the control side swaps")
}

fn never(tree: &Tree, places: &[&str], words: &[&str], todo: &'static str) -> Vec<Breach> {
    let gone = places.iter().filter(|place| !tree.has(place));
    let gone = gone.map(|place| {
        Breach::new("tests/tidy/purity.rs", format!("names `{place}`, which is gone"), "name what took its place")
    });
    let sources = tree.sources().filter(|source| places.iter().any(|place| source.path.starts_with(place)));
    let found = sources.flat_map(|source| {
        let lines = lines_with(&source.product, words);
        lines
            .map(|(line, word)| Breach::new(format!("{}:{line}", source.path), format!("`{word}`"), todo))
            .collect::<Vec<_>>()
    });
    gone.chain(found).collect()
}

#[test]
fn impurity_is_found() {
    let cases = [
        ("let now = std::time::Instant::now();", 1),
        ("use tokio::sync::Mutex;", 1),
        ("use kube::Client;", 1),
        ("use kube::CustomResource;", 0),
        ("/// as tokio::time does", 0),
        ("let x = rand::random();", 1),
        ("tracing::info!(\"x\");", 1),
    ];
    for (text, expected) in cases {
        assert_eq!(pure_stays_pure(&Tree::of(&[("api/src/a.rs", text)])).len(), expected, "{text}");
    }
    let elsewhere = [("api/src/lib.rs", ""), ("dns/src/a.rs", "use tokio::sync::Mutex;")];
    assert_eq!(pure_stays_pure(&Tree::of(&elsewhere)).len(), 0);
}

#[test]
fn a_data_path_that_asks_the_control_plane_is_found() {
    let tree = |text| Tree::of(&[("dns/src/answer/a.rs", text)]);
    assert_eq!(never(&tree("use kube::Api;"), &["dns/src/answer/"], CONTROL, "").len(), 1);
    assert_eq!(never(&tree("use arc_swap::ArcSwap;"), &["dns/src/answer/"], CONTROL, "").len(), 0);
    assert_eq!(never(&tree(""), &["dns/src/gone.rs"], CONTROL, "").len(), 1, "a stale list is a breach");
}
