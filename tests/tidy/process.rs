//! The process belongs to `src/`: environment, sockets, logging, signals and exit.
//!
//! In: what is product in each file. Parts are handed listeners, connectors, values and directories instead. The testbed is a
//! program of its own, and so is what benches measure with; the demo members stand for other machines, so they open loopback sockets as
//! they come and go.

use crate::{
    Breach,
    tree::{Source, Tree, lines_with},
};

/// What belongs to the process, by what gives it away; where else it may stand, and what to do instead.
struct Rule {
    words: &'static [&'static str],
    but_in: &'static [&'static str],
    todo: &'static str,
}

/// A build script is told what to build by its environment.
const BUILD: &str = "api/wire/build.rs";

const RULES: &[Rule] = &[
    Rule {
        words: &[
            "env::var(",
            "env::var_os(",
            "env::vars(",
            "env::args(",
            "env::args_os(",
            "env::current_dir(",
            "env::temp_dir(",
        ],
        but_in: &["testbed/", "benches/", BUILD],
        todo: "read it in `src/config.rs` and hand the value in",
    },
    Rule {
        words: &[
            "TcpListener::bind(",
            "UdpSocket::bind(",
            "UnixListener::bind(",
            "UnixDatagram::bind(",
            "Socket::new(",
            "TcpSocket::new_v4(",
            "TcpSocket::new_v6(",
        ],
        but_in: &["testbed/", "benches/", "demo/", "api/reach/src/stream.rs"],
        todo: "take a listener, or open it through the `Listen` trait that was handed in",
    },
    Rule {
        words: &["TcpStream::connect(", "UnixStream::connect(", "HttpConnector::new("],
        but_in: &["testbed/", "benches/", "demo/", "api/reach/src/stream.rs"],
        todo: "dial through the `Connect` trait that was handed in",
    },
    Rule {
        words: &["tracing_subscriber", "set_global_default(", "log::set_logger("],
        but_in: &["testbed/", "benches/"],
        todo: "only `src/telemetry.rs` installs logging",
    },
    Rule {
        words: &["tokio::signal", "signal::unix", "signal_hook", "ctrl_c(", "panic::set_hook("],
        but_in: &["testbed/", "benches/"],
        todo: "end on the CancellationToken that was handed in",
    },
    Rule {
        words: &["process::exit(", "process::abort(", "ExitCode"],
        but_in: &["testbed/", "benches/"],
        todo: "return an error; `src/` decides how the process ends",
    },
];

/// Parts touch nothing of the process; their tests may.
pub(crate) fn belongs_to_src(tree: &Tree) -> Vec<Breach> {
    let parts = tree.sources().filter(|source| !source.path.starts_with("src/"));
    parts.flat_map(|source| RULES.iter().flat_map(|rule| broken(rule, &source)).collect::<Vec<_>>()).collect()
}

fn broken(rule: &Rule, source: &Source<'_>) -> Vec<Breach> {
    if rule.but_in.iter().any(|path| source.path.starts_with(path)) {
        return Vec::new();
    }
    let lines = lines_with(&source.product, rule.words);
    lines.map(|(line, word)| Breach::new(format!("{}:{line}", source.path), format!("`{word}`"), rule.todo)).collect()
}

#[test]
fn what_belongs_to_the_process_is_found() {
    let cases = [
        ("dns/src/a.rs", "tokio::net::UdpSocket::bind(at).await", 1),
        ("src/bind.rs", "tokio::net::UdpSocket::bind(at).await", 0),
        ("dns/src/a.rs", "// UdpSocket::bind(at)", 0),
        ("dns/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { UdpSocket::bind(at) } }", 0),
        ("dns/src/tests.rs", "UdpSocket::bind(at)", 0),
        ("testbed/src/a.rs", "std::env::var(\"HOME\")", 0),
        ("gateway/src/a.rs", "std::env::var(\"HOME\")", 1),
        ("demo/src/a.rs", "TcpListener::bind(at)", 0),
        ("demo/src/a.rs", "tokio::signal::ctrl_c()", 1),
        ("agents/src/a.rs", "TcpStream::connect(at)", 1),
        ("agents/src/a.rs", "std::process::exit(1)", 1),
        ("agents/src/a.rs", "tokio::signal::ctrl_c()", 1),
        ("agents/src/a.rs", "use tracing_subscriber::fmt;", 1),
    ];
    for (path, text, expected) in cases {
        let lines: std::collections::BTreeSet<_> =
            belongs_to_src(&Tree::of(&[(path, text)])).into_iter().map(|breach| breach.at).collect();
        assert_eq!(lines.len(), expected, "{path}: {text}");
    }
}
