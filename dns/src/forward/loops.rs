//! Paths on which our questions come back to us: found by probes and by the mark on what we forward, left out until they are straight again.
//!
//! ```text
//!   probe ──► server ──► … ──► us: `arrived`   the path loops: not asked, SERVFAIL "loop via X" where there is no other
//!   probe ──► server: an answer, nothing arrived   the path is straight
//! ```
//!
//! A probe asks for a name that nobody has, below what the server is asked for; its first label is the number of the probe. After dnsmasq's
//! `--dns-loop-detect`, but for each server, again and again, and without an end of the service. In: questions that come in, what became of
//! probes. Out: which paths loop. A probe of ours never goes further, and neither does one of another instance.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};

use super::trail::Trail;
use crate::names::{below, text};

/// The label that makes a name a probe's.
const LABEL: &str = "atoll-loop";
/// Probes that wait for an answer at once.
const PROBES_MAX: usize = 4096;

/// A way to a server: whose it is, and where.
pub(super) type Path = (String, SocketAddr);

/// What is known of loops.
#[derive(Debug)]
pub(crate) struct Loops {
    instance: u64,
    /// Makes the numbers of paths: a member sees ours, and must not be able to compute another's, or it could say that one loops.
    key: RandomState,
    /// Grows with every change of the members: then all paths are probed again.
    epoch: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    probes: HashMap<u64, (Path, bool)>,
    looping: HashMap<Path, ()>,
}

impl Loops {
    /// `instance` is this server's number, random.
    pub(super) fn new(instance: u64) -> Self {
        Self { instance, key: RandomState::new(), epoch: AtomicU64::new(0), state: Mutex::default() }
    }

    /// The mark for a question on `path` that came with `before`.
    pub(super) fn mark(&self, before: Option<Trail>, path: &Path) -> Trail {
        self.onward(before, &path.0, path.1)
    }

    /// The same, of a path that nobody keeps.
    pub(super) fn onward(&self, before: Option<Trail>, whose: &str, server: SocketAddr) -> Trail {
        Trail::onward(before, self.instance, self.number(whose, server))
    }

    /// The number of a path: to a server, of a member or of the upstreams.
    fn number(&self, whose: &str, server: SocketAddr) -> u64 {
        self.key.hash_one((whose, server))
    }

    /// Whether a name, in octets of the wire and in lower case, is a probe's, of ours or of others.
    pub(crate) fn is_probe(name: &[u8]) -> bool {
        let second = name.first().and_then(|length| name.get(1 + usize::from(*length)..));
        let label =
            second.and_then(|rest| rest.split_first()).and_then(|(length, rest)| rest.get(..usize::from(*length)));
        label == Some(LABEL.as_bytes())
    }

    /// The members have changed.
    pub(super) fn renew(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether what goes to `server` comes back.
    pub(super) fn is_looping(&self, whose: &str, server: SocketAddr) -> bool {
        let state = self.state();
        !state.looping.is_empty() && state.looping.contains_key(&(whose.to_owned(), server))
    }

    /// Whether some path of `whose` loops.
    pub(super) fn any(&self, whose: &str) -> bool {
        self.state().looping.keys().any(|path| path.0 == whose)
    }

    /// A probe of `path`, by `number`, for a name below `domain`; `None` when there are too many, or the name is too long.
    pub(super) fn probe(&self, path: &Path, number: u64, domain: &Name) -> Option<Query> {
        let name = below(&[format!("{number:016x}").as_str(), LABEL], domain)?;
        let mut state = self.state();
        if state.probes.len() >= PROBES_MAX {
            return None;
        }
        state.probes.insert(number, (path.clone(), false));
        Some(Query::query(name, RecordType::TXT))
    }

    /// The probe `number` is over; `answered` says whether there was an answer to it. Returns whether the path counts differently.
    pub(super) fn settle(&self, number: u64, answered: bool) -> bool {
        let mut state = self.state();
        let Some((path, arrived)) = state.probes.remove(&number) else { return false };
        // One that arrived has changed it already.
        !arrived && answered && state.looping.remove(&path).is_some()
    }

    /// A question for `name` comes in. `Some` when it is a probe: by way of whom it came, where it is ours.
    pub(crate) fn arrived(&self, name: &Name) -> Option<String> {
        let mut labels = name.iter();
        let number = labels.next()?;
        if !labels.next()?.eq_ignore_ascii_case(LABEL.as_bytes()) {
            return None;
        }
        let number = text(number).and_then(|text| u64::from_str_radix(text, 16).ok());
        let mut state = self.state();
        let ours = number.and_then(|number| {
            let (path, arrived) = state.probes.get_mut(&number)?;
            *arrived = true;
            Some(path.clone())
        });
        let Some(path) = ours else { return Some("another server".to_owned()) };
        state.looping.insert(path.clone(), ());
        Some(shown(&path))
    }

    /// A question that came with `trail` would be forwarded to `servers` of `whose`. `Some` when it went there already: by way of whom.
    pub(super) fn returned(&self, trail: Trail, whose: &str, servers: &[SocketAddr]) -> Option<String> {
        if trail.is_long() {
            return Some(format!("{whose}, forwarded too often"));
        }
        if trail.origin != self.instance {
            return None;
        }
        let server = servers.iter().find(|server| self.number(whose, **server) == trail.path)?;
        let path = (whose.to_owned(), *server);
        let shown = shown(&path);
        self.state().looping.insert(path, ());
        Some(shown)
    }

    /// Forgets the paths of who is gone.
    pub(super) fn keep(&self, known: impl Fn(&Path) -> bool) {
        self.state().looping.retain(|path, ()| known(path));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path as people read it.
pub(super) fn shown((whose, server): &Path) -> String {
    format!("{whose} {server}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::absolute;

    fn path() -> Path {
        ("lab".to_owned(), SocketAddr::from(([127, 0, 0, 1], 53)))
    }

    #[test]
    fn a_probe_that_comes_back_closes_its_path_until_one_does_not() {
        let loops = Loops::new(7);
        let domain = absolute("lab.atoll.internal").unwrap();
        let looping = || loops.is_looping("lab", path().1);
        let probe = loops.probe(&path(), 0xabc, &domain).unwrap();
        assert_eq!(probe.name, absolute("0000000000000abc.atoll-loop.lab.atoll.internal").unwrap());
        assert_eq!(loops.arrived(&probe.name).as_deref(), Some("lab 127.0.0.1:53"));
        assert!(looping() && loops.any("lab") && !loops.any("dc1"));
        assert!(!loops.settle(0xabc, true) && looping());
        // No answer is no news.
        loops.probe(&path(), 1, &domain);
        assert!(!loops.settle(1, false) && looping());
        loops.probe(&path(), 2, &domain);
        assert!(loops.settle(2, true) && !looping());
        assert_eq!(loops.arrived(&absolute("web.lab.atoll.internal").unwrap()), None);
        let foreign = loops.arrived(&absolute("00000000000000ff.atoll-loop.test").unwrap());
        assert_eq!(foreign.as_deref(), Some("another server"));
        for (name, is) in [("00.atoll-loop.test", true), ("atoll-loop.test", false), ("a", false), ("", false)] {
            let octets = crate::names::lower_octets(&absolute(name).unwrap_or_default());
            assert_eq!(Loops::is_probe(&octets), is, "{name}");
        }
    }

    #[test]
    fn a_marked_question_that_would_go_where_it_was_closes_the_path() {
        let loops = Loops::new(7);
        let mark = loops.mark(None, &path());
        let servers = [path().1];
        assert_eq!(loops.returned(mark, "dc1", &servers), None);
        assert_eq!(Loops::new(8).returned(mark, "lab", &servers), None);
        let forged = Loops::new(7).mark(None, &path());
        assert_eq!(loops.returned(forged, "lab", &servers), None, "another's number of a path is none of ours");
        assert_eq!(loops.returned(mark, "lab", &servers).as_deref(), Some("lab 127.0.0.1:53"));
        assert!(loops.is_looping("lab", path().1));
        let mut long = mark;
        for _ in 0..8 {
            long = Loops::new(9).mark(Some(long), &path());
        }
        assert!(Loops::new(9).returned(long, "dc1", &servers).is_some());
    }
}
