//! Which clusters serve an asker, in which order: one pure function for DNS and gateway.
//!
//! ```text
//!   candidates ── same cluster set ── usable ── Active before Standby ── step ── step ── … ──► tiers
//!                                       └── nobody: the all-down rule ──► what was good last, or all, through the same steps
//! ```
//!
//! In: who asks, which clusters offer the service and how they are, the chain of a TrafficPolicy. Out: tiers; the clusters of
//! one tier are equal, a later tier serves only what the earlier ones can't. Never: crosses a cluster set, reads a clock or dice
//! (both are arguments), depends on the order in which candidates are given.
//! A new policy is one file and one row of [`POLICIES`].

mod failover;
mod geofence;
mod latency;
mod nearest;
mod policy;
mod sticky;
#[cfg(test)]
mod tests;
mod weighted;

pub use nearest::distance_km;
pub use policy::{BadPolicy, Key, POLICIES, Parsed, Policy, Route};
use std::collections::BTreeMap;

use crate::kinds::{AllDown, ClusterRole, Step};
use crate::names::ClusterName;
use crate::topology::ClusterFacts;

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asker<'a> {
    /// The member it stands in.
    pub cluster: Option<&'a str>,
    /// The cluster set whose services it may use.
    pub set: &'a str,
    /// Its region.
    pub region: Option<&'a str>,
    /// Its zone.
    pub zone: Option<&'a str>,
    /// Latitude and longitude in degrees; unknown, its region's clusters stand for it.
    pub location: Option<(f64, f64)>,
    /// Round-trip times in milliseconds as measured from its region: what `latency` goes by.
    pub rtt: Option<&'a BTreeMap<ClusterName, u32>>,
    /// The same for the same client: what `sticky` goes by.
    pub client: u64,
    /// Evenly distributed, new for every question: what `weighted` goes by.
    pub dice: u64,
}

/// A cluster that offers what is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What the topology says of it.
    pub cluster: &'a ClusterFacts,
    /// Whether it counts as healthy ([`crate::health::HealthView`]).
    pub ready: bool,
    /// How many endpoints there could take a request.
    pub endpoints: usize,
    /// How many are there, but are not ready, or fail their health check.
    pub unready: usize,
    /// When somebody was usable last, this one was.
    pub last_good: bool,
}

impl<'a> Candidate<'a> {
    /// One of which nothing is known but what it has ready.
    pub fn new(cluster: &'a ClusterFacts, ready: bool, endpoints: usize) -> Self {
        Self { cluster, ready, endpoints, unready: 0, last_good: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.cluster.name.as_str()
    }
}

/// The steps of a policy, parsed.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<(&'static str, Box<dyn Route>)>,
    all_down: AllDown,
}

impl Chain {
    /// Parses the strategy of a TrafficPolicy. No steps: the nearest.
    ///
    /// # Errors
    /// When a step names no row of [`POLICIES`] or has parameters that the row refuses. The writer is at fault.
    pub fn parse(strategy: &[Step], all_down: Option<AllDown>) -> Result<Self, BadPolicy> {
        let steps = strategy.iter().map(policy::parse).collect::<Result<_, _>>()?;
        Ok(Self { steps, all_down: all_down.unwrap_or_default() })
    }

    /// What of the question the choice depends on beside the asker's place. The first step that goes by client or dice leaves tiers of
    /// one cluster each, so that a later one decides nothing.
    pub fn key(&self) -> Key {
        self.steps.iter().map(|(_, s)| s.key()).find(|key| *key != Key::Place).unwrap_or_default()
    }

    /// Whether the choice depends on [`Asker::client`] or [`Asker::dice`]; if not, it may be kept between questions.
    pub fn keyed(&self) -> bool {
        self.key() != Key::Place
    }

    /// What to do when nothing is usable.
    pub fn all_down(&self) -> AllDown {
        self.all_down
    }
}

/// Who was taken when nobody was usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resort {
    /// Those that were usable last.
    LastGood,
    /// Everybody that has endpoints, whatever health says.
    All,
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Indices into the candidates, best tier first. Within a tier in order of names, all equal.
    pub tiers: Vec<Vec<usize>>,
    /// Nothing usable was left, and these were taken by the all-down rule.
    pub resort: Option<Resort>,
    /// Somebody was usable, but a step left nobody: a geofence, or groups that name others.
    pub fenced: bool,
    /// What was decided and why, one line a decision, for people.
    pub why: Vec<String>,
}

/// Chooses clusters for `asker`: tiers, best first, empty when nobody can serve.
pub fn choose(asker: &Asker<'_>, candidates: &[Candidate<'_>], chain: &Chain) -> Choice {
    let mut why = Vec::new();
    let mut in_set: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].cluster.set() == asker.set).collect();
    in_set.sort_by(|a, b| candidates[*a].name().cmp(candidates[*b].name()));
    for c in candidates.iter().filter(|c| c.cluster.set() != asker.set) {
        why.push(format!("{}: left out, cluster set {} is not {}", c.name(), c.cluster.set(), asker.set));
    }
    // The order in which candidates are given must not show in the reasons either.
    why.sort_unstable();
    let usable = in_set.iter().copied().filter(|i| {
        let c = &candidates[*i];
        match (c.ready, c.endpoints) {
            (true, 0) if c.unready > 0 => {
                why.push(format!("{}: left out, none of its {} endpoints is well", c.name(), c.unready));
            }
            (true, 0) => why.push(format!("{}: left out, has no ready endpoint", c.name())),
            (false, _) => why.push(format!("{}: left out, not ready", c.name())),
            (true, _) => return true,
        }
        false
    });
    let usable: Vec<usize> = usable.collect();
    let fenced = !usable.is_empty();
    let tiers = walk(asker, candidates, chain, usable, &mut why);
    if !tiers.is_empty() {
        return Choice { tiers, why, ..Choice::default() };
    }
    for (resort, left) in resorts(chain.all_down, candidates, &in_set) {
        let said = match resort {
            Resort::LastGood => "nothing is usable: what was good last is given",
            Resort::All => "nothing is usable: everything with endpoints is tried",
        };
        why.push(format!("{said} (allDown {:?})", chain.all_down));
        let tiers = walk(asker, candidates, chain, left, &mut why);
        if !tiers.is_empty() {
            return Choice { tiers, resort: Some(resort), why, ..Choice::default() };
        }
    }
    Choice { fenced, why, ..Choice::default() }
}

/// Who is taken when nobody is usable, what is best first.
fn resorts(rule: AllDown, candidates: &[Candidate<'_>], in_set: &[usize]) -> Vec<(Resort, Vec<usize>)> {
    let those = |wanted: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<usize> {
        in_set.iter().copied().filter(|i| wanted(&candidates[*i])).collect()
    };
    let found = match rule {
        // A cluster that is down keeps the endpoints that it had: they are the last that was known good.
        AllDown::LastGood => {
            vec![(Resort::LastGood, those(&|c| c.last_good)), (Resort::LastGood, those(&|c| c.endpoints > 0))]
        }
        AllDown::All => vec![(Resort::All, those(&|c| c.endpoints + c.unready > 0))],
        AllDown::Fallback | AllDown::None => Vec::new(),
    };
    found.into_iter().filter(|(_, left)| !left.is_empty()).collect()
}

/// Takes the candidates through roles and steps.
fn walk(
    asker: &Asker<'_>,
    candidates: &[Candidate<'_>],
    chain: &Chain,
    usable: Vec<usize>,
    why: &mut Vec<String>,
) -> Vec<Vec<usize>> {
    if usable.is_empty() {
        return Vec::new();
    }
    let mut tiers = vec![usable];
    // A step that names groups says itself who stands by.
    if !chain.steps.iter().any(|(_, s)| s.ranks_roles()) {
        tiers = split(tiers, |tier| by_rank(&tier, |i| u8::from(candidates[i].cluster.role() == ClusterRole::Standby)));
        if tiers.len() > 1 {
            why.push(format!("Active before Standby: {}", names(candidates, &tiers)));
        }
    }
    let nearest_step = nearest::Nearest::default();
    let nearest: (&str, &dyn Route) = ("nearest", &nearest_step);
    let given = chain.steps.iter().map(|(name, s)| (*name, s.as_ref()));
    let steps: Vec<_> = if chain.steps.is_empty() { vec![nearest] } else { given.collect() };
    for (name, step) in steps {
        tiers = split(tiers, |tier| step.route(asker, candidates, tier));
        why.push(format!("{name}: {}", names(candidates, &tiers)));
    }
    tiers
}

/// Replaces each tier by what `refine` makes of it, without empty ones.
fn split(tiers: Vec<Vec<usize>>, mut refine: impl FnMut(Vec<usize>) -> Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    tiers.into_iter().flat_map(&mut refine).filter(|t| !t.is_empty()).collect()
}

/// Splits a tier by rank, smallest first; inside a rank the order stays.
fn by_rank<K: Ord>(tier: &[usize], rank: impl Fn(usize) -> K) -> Vec<Vec<usize>> {
    let mut ranked: Vec<(K, usize)> = tier.iter().map(|i| (rank(*i), *i)).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.chunk_by(|a, b| a.0 == b.0).map(|same| same.iter().map(|(_, i)| *i).collect()).collect()
}

fn names(candidates: &[Candidate<'_>], tiers: &[Vec<usize>]) -> String {
    let tier = |t: &Vec<usize>| t.iter().map(|i| candidates[*i].name()).collect::<Vec<_>>().join(" = ");
    match tiers {
        [] => "nobody is left".to_owned(),
        some => some.iter().map(tier).collect::<Vec<_>>().join(", then "),
    }
}
