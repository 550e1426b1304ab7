//! Canaries: an Ingress that takes a part of the requests of another's paths, which is served as that other one, the main Ingress, says. Pure.
//!
//! Source: ingress-nginx, "Canary": "when you mark an ingress as canary, then all the other non-canary annotations will be ignored (inherited
//! from the corresponding main ingress)". What is ignored is said; where there is no main Ingress nothing is inherited, and what would protect
//! closes the path.

use std::collections::BTreeSet;

use super::hosts::{Hosts, Owned, note};
use super::read::{Finding, finding, is_off, written};
use super::table::{Does, protects, row};
use super::wish::{Wish, Wished};

/// Gives the paths of the main Ingresses their canary, by its place. Returns which of its paths nobody else has and must be closed.
pub(super) fn part(wishes: &mut [Wish], at: usize, hosts: &mut Hosts) -> Vec<(usize, usize)> {
    let Some(canary) = wishes[at].canary.clone() else { return Vec::new() };
    let (mut lost, mut mains, mut alone) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (place, wished) in wishes[at].paths.iter().enumerate() {
        let found = hosts
            .get_mut(&wished.host)
            .and_then(|host| host.paths.iter_mut().find(|p| is_same(&wishes[p.owner].paths[p.at], wished)));
        let why = match found {
            None => {
                alone.push((at, place));
                "no other Ingress has that host and path".to_owned()
            }
            Some(main) if wishes[main.owner].namespace != wishes[at].namespace => {
                "the main Ingress is of another namespace".to_owned()
            }
            Some(main) if main.canary.is_some() => "an older canary is there".to_owned(),
            Some(main) => {
                mains.insert(main.owner);
                main.canary = Some((canary.clone(), wished.backend.clone()));
                continue;
            }
        };
        let what = format!("`{}{}`: {why}", wished.host, wished.path.value);
        lost.push(note("canary", what, "HTTPRoute backendRefs with weights"));
    }
    let ignored = ignored(wishes, at, &mains, !alone.is_empty());
    let said = written(&wishes[at].object);
    let wish = &mut wishes[at];
    // What was found while it was read as if it were a main one.
    wish.findings.retain(|found| is_of_canaries(&found.what) || !said.contains_key(&found.what));
    wish.findings.extend(lost);
    wish.findings.extend(ignored);
    alone.retain(|_| wish.closed());
    alone
}

/// A path that only a canary has, of which it says what would protect it: it answers 503, whatever else takes it.
pub(super) fn close(wishes: &mut [Wish], owner: usize, at: usize, hosts: &mut Hosts) {
    let wish = &mut wishes[owner];
    (wish.moved, wish.app_root, wish.clients, wish.passes) = (None, None, None, false);
    let wished = wish.paths[at].clone();
    let host = hosts.entry(wished.host.clone()).or_default();
    if !host.paths.iter().any(|path| is_same(&wishes[path.owner].paths[path.at], &wished)) {
        host.paths.push(Owned { owner, at, canary: None });
    }
}

fn is_same(a: &Wished, b: &Wished) -> bool {
    a.path.value == b.path.value && a.path.kind == b.path.kind
}

fn is_of_canaries(annotation: &str) -> bool {
    annotation == "canary" || annotation.starts_with("canary-")
}

/// The annotations that are ignored, but those that the main Ingresses have as well.
fn ignored(wishes: &[Wish], at: usize, mains: &BTreeSet<usize>, is_alone: bool) -> Vec<Finding> {
    let said = written(&wishes[at].object);
    let wishing = said.iter().filter(|(name, value)| {
        let is_implied = row(name).is_some_and(|row| row.does == Does::Implied);
        !is_of_canaries(name) && !is_off(name, value) && !is_implied
    });
    let one = |(name, value): (&String, &String)| {
        if is_alone && protects(name, value) {
            let why = "on a canary it is ignored, and no main Ingress is there that could have it";
            return Some(finding(name, why, true));
        }
        if mains.is_empty() {
            return Some(finding(name, "on a canary it is ignored: the main Ingress's counts", false));
        }
        let other =
            mains.iter().map(|main| &wishes[*main]).find(|main| written(&main.object).get(name) != Some(value))?;
        let has = if written(&other.object).contains_key(name) { "has another value" } else { "does not have it" };
        let why = format!(
            "on a canary it is ignored: the main Ingress `{}/{}` counts, which {has}",
            other.namespace, other.name
        );
        Some(finding(name, why, false))
    };
    wishing.filter_map(one).collect()
}
