//! What is computed from its arguments alone, and what serves without asking the control plane.
//!
//! In: what is product in each file. `PURE` and `DATA_PATHS` name files or folders; a name that is gone is a breach, so that
//! the lists stay true. A file whose module doc says "Pure." is held to it as well.

use crate::{
    Breach,
    tree::{Tree, lines_with},
};

/// Modules that must be functions of their arguments; others say of themselves that they are.
const PURE: &[&str] = &[
    "api/src/",
    "federation/src/approvals/machine.rs",
    "federation/src/placement/divide.rs",
    "federation/src/placement/score/",
    "federation/src/placement/shards.rs",
    "federation/src/placement/solve.rs",
    "federation/src/placement/transition.rs",
    "federation/src/topology/fold.rs",
    "federation/registry/src/plan.rs",
    "gateway/src/kinds/",
    "gateway/src/status/mod.rs",
    "gateway/src/table/",
];

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
const DATA_PATHS: &[&str] = &[
    "dns/src/cache/",
    "dns/src/edge.rs",
    "dns/src/edns.rs",
    "dns/src/forward/",
    "dns/src/lookup/",
    "dns/src/gate.rs",
    "dns/src/resolve/",
    "dns/src/respond/",
    "dns/src/stream/",
    "dns/src/transport/",
    "gateway/src/balance/",
    "gateway/src/choose.rs",
    "gateway/src/filter/",
    "gateway/src/http/",
    "gateway/src/http3/",
    "gateway/src/listen/",
    "gateway/src/pool.rs",
];

/// What a data path never names; it reads a snapshot instead.
const CONTROL: &[&str] = &["kube::", "tonic::", "atoll_wire::"];

/// Time, randomness and what lies outside are arguments.
pub(crate) fn pure_stays_pure(tree: &Tree) -> Vec<Breach> {
    let says_so = tree.sources().filter(|source| claims(source.text)).map(|source| source.path);
    let places: Vec<&str> = PURE.iter().copied().chain(says_so).collect();
    gone(tree, PURE)
        .into_iter()
        .chain(never(tree, &places, IMPURE, "make it an argument, or move the impure part out to the caller"))
        .collect()
}

/// Whether the module doc says that the file is pure.
fn claims(text: &str) -> bool {
    let mut doc = text.lines().take_while(|line| line.starts_with("//!"));
    doc.any(|line| ["Pure.", "Pure:", "Pure,"].iter().any(|word| line.contains(word)))
}

/// A query or a request never waits for the control plane.
pub(crate) fn data_paths(tree: &Tree) -> Vec<Breach> {
    let todo = "read it from the snapshot (ArcSwap) that the control side swaps";
    gone(tree, DATA_PATHS).into_iter().chain(never(tree, DATA_PATHS, CONTROL, todo)).collect()
}

fn gone(tree: &Tree, places: &[&str]) -> Vec<Breach> {
    let gone = places.iter().filter(|place| !tree.has(place));
    let breach = |place: &&str| {
        Breach::new("tests/tidy/purity.rs", format!("names `{place}`, which is gone"), "name what took its place")
    };
    gone.map(breach).collect()
}

fn never(tree: &Tree, places: &[&str], words: &[&str], todo: &'static str) -> Vec<Breach> {
    let sources = tree.sources().filter(|source| places.iter().any(|place| source.path.starts_with(place)));
    let found = sources.flat_map(|source| {
        let lines = lines_with(&source.product, words);
        lines
            .map(|(line, word)| Breach::new(format!("{}:{line}", source.path), format!("`{word}`"), todo))
            .collect::<Vec<_>>()
    });
    found.collect()
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
        let tree = |path, head: &str| Tree::of(&[(path, &format!("{head}{text}"))]);
        let found = |tree: &Tree| pure_stays_pure(tree).iter().filter(|breach| breach.at.contains("a.rs")).count();
        assert_eq!(found(&tree("api/src/a.rs", "//! One.\n")), expected, "listed: {text}");
        assert_eq!(found(&tree("dns/src/a.rs", "//! One.\n//! Pure.\n")), expected, "says so: {text}");
        assert_eq!(found(&tree("dns/src/a.rs", "//! One.\n")), 0, "neither: {text}");
    }
}

#[test]
fn a_data_path_that_asks_the_control_plane_is_found() {
    let tree = |text| Tree::of(&[("dns/src/answer/a.rs", text)]);
    assert_eq!(never(&tree("use kube::Api;"), &["dns/src/answer/"], CONTROL, "").len(), 1);
    assert_eq!(never(&tree("use arc_swap::ArcSwap;"), &["dns/src/answer/"], CONTROL, "").len(), 0);
}

#[test]
fn a_list_that_names_what_is_gone_is_found() {
    let tree = Tree::of(&[("dns/src/a.rs", "")]);
    assert_eq!(gone(&tree, &["dns/src/", "dns/src/a.rs"]).len(), 0);
    assert_eq!(gone(&tree, &["dns/src/b.rs"]).len(), 1);
}
