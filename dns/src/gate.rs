//! What may go the slow way: before any work is done for a query that is no hit, whose name it is for decides.
//!
//! ```text
//!   no hit ── whose subtree, by the octets of its name; whose address, for names of reverse zones
//!               ├── a member that answers nothing, and nothing is kept of the name ─► failure, at once
//!               ├── its share is full ─► failure: too many in flight; the newest is shed
//!               └── else a pass, held until it is answered ─► queue, tasks, the member
//! ```
//!
//! In: plain queries, the time, the worlds that follow each other. Out: a [`Pass`], or the extended errors of the failure. So a flood of
//! names, new or repeated, for one member costs what hits cost, and takes nothing from the others. Waits for nobody, allocates nothing.
//! Source: RFC 9520 §3.2 (failures are remembered), RFC 8767 §5 (what was answered before is given while the member does not answer).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use prometheus::IntCounter;
use tokio::time::Instant;

use crate::answer::{Answer, Source};
use crate::arpa;
use crate::changes::{same_ground, same_words};
use crate::counters::Told;
use crate::edns::Edes;
use crate::forward::{Failed, Forwarder, Party};
use crate::lookup::Lookups;
use crate::metrics::Metrics;
use crate::names::{lower_octets, text, within};
use crate::prefixes::Prefixes;
use crate::resolve::failure;
use crate::road::Road;
use crate::share::{Pass, Share};
use crate::table::{Member, Table};
use crate::wire::query::{NAME_MAX, Query};
use crate::world::World;
use atoll_api::rdata::{is_dnssec, may_hide_names};

/// Queries that wait for something of ours, for reverse zones of nobody or of several, for names of others: half of what a queue holds at
/// most.
const SHARE: usize = 1024;
/// Names that nothing is known of may take half of their member's share.
const UNKNOWN: usize = 2;
/// Labels of the longest name (RFC 1035 §2.3.4: two octets each at least).
const LABELS_MAX: usize = NAME_MAX / 2;
/// The end of every name of a reverse zone.
const ARPA: &[u8] = b"\x04arpa\x00";

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    doors: ArcSwap<Doors>,
    ours: Group,
    outside: Group,
    reverse: Group,
    /// What is no plain query.
    odd: Group,
    metrics: Metrics,
}

/// Doors by the names that lead to them: octets of the wire, lower case; `None`: a zone of ours.
#[derive(Debug, Default)]
struct Doors {
    doors: HashMap<Box<[u8]>, Option<Arc<Door>>>,
    /// Of each member by its addresses.
    addresses: Prefixes<Arc<Door>>,
    mixed: Mixed,
}

/// The way into a member's subtree.
#[derive(Debug)]
struct Door {
    member: Arc<Member>,
    party: Arc<Party>,
    /// Nothing of ours stands among the member's names, and every asker sees them.
    whole: bool,
    /// It does not answer our probes.
    down: bool,
    /// Where plain questions need no thought.
    road: Option<Arc<Road>>,
    full: Sign,
    unprobed: Sign,
    unanswered: Sign,
}

/// Names that share one way.
#[derive(Debug)]
struct Group {
    share: Arc<Share>,
    full: Sign,
}

/// What is said where nobody gets through, and how often it was.
#[derive(Debug)]
struct Sign {
    /// Extended errors as octets.
    edes: Box<[u8]>,
    told: Told,
    count: IntCounter,
}

/// Whose a name is.
enum Whose<'d> {
    /// A member's, and how much of the name stands left of its subtree's; `None`: the name of an address that it alone has.
    Member(&'d Door, Option<usize>),
    Ours,
    Reverse,
    Outside,
}

impl Gate {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let group = |whose: &str| Group {
            share: Share::new(SHARE),
            full: Sign::new(failure(&Failed::Busy, "this server"), metrics, (whose, "full")),
        };
        Self {
            doors: ArcSwap::default(),
            ours: group("(own)"),
            outside: group("(upstream)"),
            reverse: group("(reverse)"),
            odd: group("(other)"),
            metrics: metrics.clone(),
        }
    }

    /// Takes a world that counts from now on; `before` is the one before.
    pub(crate) fn follow(&self, before: Option<&World>, world: &World, forwarder: &Forwarder) {
        let same = |b: &World| {
            let (was, is) = (&b.table.topology, &world.table.topology);
            same_ground(was, is)
                && b.down == world.down
                && b.table.zones.same_names(&world.table.zones)
                && (same_words(was, is) || self.doors.load().mixed == Mixed::of(&world.table))
        };
        if !before.is_some_and(same) {
            self.doors.store(Arc::new(Doors::new(world, forwarder, &self.metrics)));
        }
    }

    /// A pass for `query`.
    ///
    /// # Errors
    /// None is given: what `say` makes of the extended errors that tell why.
    pub(crate) fn admit<R>(
        &self,
        query: &Query<'_>,
        lookups: &Lookups,
        now: Instant,
        say: impl FnOnce(Edes<'_>, Told) -> R,
    ) -> Result<Pass, R> {
        let doors = self.doors.load();
        let group = match doors.find(query.name) {
            Whose::Member(door, left) => return door.admit(query, left, lookups, now).map_err(|sign| sign.show(say)),
            Whose::Ours => &self.ours,
            Whose::Reverse => &self.reverse,
            Whose::Outside => &self.outside,
        };
        group.share.pass(1).ok_or(&group.full).map_err(|sign| sign.show(say))
    }

    /// The straight road for `query`, and how much of its name stands left of the member's subtree; `None`: the name of an address.
    pub(crate) fn road(&self, query: &Query<'_>) -> Option<(Arc<Road>, Option<usize>)> {
        let doors = self.doors.load();
        let Whose::Member(door, left) = doors.find(query.name) else { return None };
        let road = door.road.as_ref().filter(|_| !door.down && left != Some(0))?;
        door.is_asked(query, left).then(|| (Arc::clone(road), left))
    }

    /// What is said to a query that came by a stream, where its member answers nothing: streams have bounds of their own.
    pub(crate) fn shut<R>(
        &self,
        query: &Query<'_>,
        lookups: &Lookups,
        now: Instant,
        say: impl FnOnce(Edes<'_>, Told) -> R,
    ) -> Option<R> {
        let doors = self.doors.load();
        let Whose::Member(door, left) = doors.find(query.name) else { return None };
        door.shut(query, left, lookups, now).map(|sign| sign.show(say))
    }

    /// A pass for what is no plain query.
    pub(crate) fn admit_odd(&self) -> Option<Pass> {
        let pass = self.odd.share.pass(1);
        if pass.is_none() {
            self.odd.full.count.inc();
        }
        pass
    }
}

impl Doors {
    fn new(world: &World, forwarder: &Forwarder, metrics: &Metrics) -> Self {
        let table = &world.table;
        let mixed = Mixed::of(table);
        let mut doors: HashMap<_, _> =
            table.zones.iter().map(|zone| (lower_octets(zone.apex()).into(), None)).collect();
        let mut addresses = Prefixes::default();
        for member in table.members.values() {
            let name = member.name.as_str();
            let sign = |failed: &Failed, why| {
                let sources = vec![Source::Member(member.name.clone())];
                let answer = Answer { sources, ..failure(failed, &format!("cluster `{name}`")) };
                Sign::new(answer, metrics, (name, why))
            };
            let party = forwarder.party(name);
            let road = Road::new(member, &party, metrics).filter(|_| table.home.is_none());
            let door = Door {
                member: Arc::clone(member),
                party,
                road,
                whole: !mixed.has(name),
                down: world.down.contains(&member.name),
                full: sign(&Failed::Busy, "full"),
                unprobed: sign(&Failed::unprobed(), "down"),
                unanswered: sign(&Failed::unanswered(), "open"),
            };
            let door = Arc::new(door);
            // A node answers for its own member's addresses in its own way.
            for range in member.rename.ranges().iter().filter(|_| table.home.is_none() && !mixed.reverse) {
                addresses.insert(*range, Arc::clone(&door));
            }
            doors.insert(lower_octets(member.rename.hub()).into(), Some(door));
        }
        Self { doors, addresses, mixed }
    }

    /// Whose `name` is: of the longest zone or subtree around it.
    fn find(&self, name: &[u8]) -> Whose<'_> {
        let mut at = 0;
        while let Some(length) = name.get(at) {
            match self.doors.get(&name[at..]) {
                Some(Some(door)) => return Whose::Member(door, Some(at)),
                Some(None) => return Whose::Ours,
                None => at += 1 + usize::from(*length),
            }
        }
        if !name.ends_with(ARPA) {
            return Whose::Outside;
        }
        self.of_address(name).map_or(Whose::Reverse, |door| Whose::Member(door, None))
    }

    /// Whose address `name` is the name of, where it is one member's alone: elsewhere it is for each asker to say.
    fn of_address(&self, name: &[u8]) -> Option<&Door> {
        let mut doors = self.addresses.all(arpa::address(name)?).map(|(_, door)| door);
        let door = doors.next().filter(|door| door.member.kind.reverse)?;
        doors.all(|other| Arc::ptr_eq(other, door)).then_some(&**door)
    }
}

impl Door {
    fn admit(&self, query: &Query<'_>, left: Option<usize>, lookups: &Lookups, now: Instant) -> Result<Pass, &Sign> {
        if let Some(sign) = self.shut(query, left, lookups, now) {
            return Err(sign);
        }
        let share = &self.party.share;
        let known = || lookups.knows(self.member.fingerprint, query.name, query.kind);
        share.pass(UNKNOWN).or_else(|| share.pass(1).filter(|_| known())).ok_or(&self.full)
    }

    /// The sign for a query whose answer is known beforehand: nobody will give one.
    fn shut(&self, query: &Query<'_>, left: Option<usize>, lookups: &Lookups, now: Instant) -> Option<&Sign> {
        let sign = match self.down {
            true => &self.unprobed,
            false => self.party.circuit.is_open(now).then_some(&self.unanswered)?,
        };
        (self.is_asked(query, left) && !lookups.knows(self.member.fingerprint, query.name, query.kind)).then_some(sign)
    }

    /// Whether the member would be asked for a name that has so many octets left of its subtree's, or is an address's: for some we know the
    /// answer ourselves.
    fn is_asked(&self, query: &Query<'_>, left: Option<usize>) -> bool {
        let kind = query.kind.into();
        !is_dnssec(kind) && !may_hide_names(kind) && left.is_none_or(|left| self.has_maybe(&query.name[..left]))
    }

    /// Whether names that begin with these labels may be the member's.
    fn has_maybe(&self, mut left: &[u8]) -> bool {
        let mut path: [&[u8]; LABELS_MAX] = [&[]; LABELS_MAX];
        let mut labels = 0;
        while let Some((length, rest)) = left.split_first() {
            let Some((label, rest)) = rest.split_at_checked(usize::from(*length)) else { return false };
            (path[labels], left) = (label, rest);
            labels += 1;
        }
        self.whole && !self.member.has_never_below(&path[..labels])
    }
}

impl Sign {
    fn new(answer: Answer, metrics: &Metrics, (whose, why): (&str, &str)) -> Self {
        let told = Told::of(&answer, metrics.label(&answer, None));
        Self { edes: Edes::keep(&answer.edes).into(), told, count: metrics.shed(whose, why) }
    }

    fn show<R>(&self, say: impl FnOnce(Edes<'_>, Told) -> R) -> R {
        self.count.inc();
        say(Edes::Kept(&self.edes), self.told)
    }
}

/// The subtrees of members that have something of ours in them.
#[derive(Debug, Default, PartialEq)]
struct Mixed {
    all: bool,
    /// Hosts of policies lie in reverse zones.
    reverse: bool,
    words: HashSet<String>,
}

impl Mixed {
    fn of(table: &Table) -> Self {
        let mut mixed = Self::default();
        let Some(apex) = &table.apex else { return mixed };
        mixed.all = !table.clients.all_see(apex);
        let zone = table.zone_of(apex);
        for member in table.members.values() {
            let hub = member.rename.hub();
            let inside = zone.is_some_and(|zone| zone.knows(hub)) || table.zones.has_below(hub);
            mixed.words.extend(inside.then(|| member.name.as_str().to_owned()));
        }
        for host in table.hosts() {
            let base = if host.is_wildcard() { host.base_name() } else { host.clone() };
            mixed.all |= host.is_wildcard() && within(apex, &base);
            mixed.reverse |= lower_octets(&base).ends_with(ARPA) || base.is_root();
            mixed.note(&base, apex);
        }
        mixed
    }

    /// Notes the label of `name` right below the apex.
    fn note(&mut self, name: &Name, apex: &Name) {
        let below = name.iter().len().checked_sub(apex.iter().len() + 1).filter(|_| within(name, apex));
        let word = below.and_then(|at| name.iter().nth(at)).and_then(text);
        self.words.extend(word.map(str::to_ascii_lowercase));
    }

    fn has(&self, member: &str) -> bool {
        self.all || self.words.contains(member)
    }
}

#[cfg(test)]
mod tests;
