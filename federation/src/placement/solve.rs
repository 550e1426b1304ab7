//! Which clusters run how many replicas of a demand: filter, group, spread, divide. Pure and deterministic.
//!
//! Input: one demand and all members, free capacity after earlier demands. Output: replicas by cluster, what found no place, and a
//! reason for every cluster. Solving its own answer again changes nothing.

use std::collections::BTreeMap;

use atoll_api::kinds::{DivisionMode, Spread, Taint, TaintEffect, Toleration};

use super::divide::{Share, divide, tie};
use super::model::{Demand, Member, Standing};
use super::score;

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Replicas by cluster (1 where nothing is divided).
    pub placed: BTreeMap<String, i32>,
    /// Replicas that found no place.
    pub unplaced: i32,
    /// Why each cluster has what it has.
    pub why: BTreeMap<String, String>,
}

/// Places `demand` on `members`.
pub fn solve(demand: &Demand, members: &[Member]) -> Verdict {
    let mut verdict = Verdict::default();
    // Filter: a cluster that is out says why.
    let mut eligible: Vec<&Member> = Vec::new();
    for member in members {
        match refuse(demand, member) {
            Some(why) => drop(verdict.why.insert(member.name.clone(), why)),
            None => eligible.push(member),
        }
    }
    let wanted = demand.replicas.unwrap_or(1);
    let mut missing = wanted;
    // Group: the next one takes only what the one before can't hold.
    for (i, group) in groups(demand, &eligible, &mut verdict).into_iter().enumerate() {
        if missing <= 0 {
            for m in group {
                verdict.why.insert(m.name.clone(), format!("in affinity group {}, which is not needed", i + 1));
            }
            continue;
        }
        let placed = place_group(demand, &group, missing, &mut verdict);
        let got = if duplicates(demand) { placed.values().max().copied().unwrap_or(0) } else { placed.values().sum() };
        missing -= got;
        verdict.placed.extend(placed);
    }
    verdict.unplaced = missing.max(0);
    verdict
}

fn duplicates(demand: &Demand) -> bool {
    demand.replicas.is_none() || demand.rules.division.mode == DivisionMode::Duplicated
}

/// Why `member` is out, if it is.
fn refuse(demand: &Demand, member: &Member) -> Option<String> {
    let runs = demand.current.get(&member.name).is_some_and(|n| *n > 0);
    if !demand.rules.clusters.matches(&member.name, &member.spec, &member.labels) {
        return Some("not selected by `clusters`".into());
    }
    match member.standing {
        Standing::Ready => {}
        Standing::NamesOnly => return Some("its sync mode is None".into()),
        Standing::Lost => return Some("lost".into()),
        Standing::Suspect if runs => {}
        Standing::Suspect => return Some("not Ready".into()),
        Standing::Stabilising if runs => {}
        Standing::Stabilising => return Some("Ready again, but not for long enough (failback.stabilise)".into()),
    }
    let hindering = member.spec.taints.iter().find(|t| !tolerated(t, &demand.rules.tolerations) && hinders(t, runs))?;
    Some(format!("taint `{}` is not tolerated", hindering.key))
}

fn hinders(taint: &Taint, runs: bool) -> bool {
    match taint.effect {
        TaintEffect::NoExecute => true,
        TaintEffect::NoSchedule => !runs,
        TaintEffect::PreferNoSchedule => false,
    }
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| {
        t.key.as_ref().is_none_or(|k| *k == taint.key)
            && (t.value.is_none() || t.value == taint.value)
            && t.effect.is_none_or(|e| e == taint.effect)
    })
}

/// The eligible members by affinity group, in order; without groups, all in one.
fn groups<'a>(demand: &Demand, eligible: &[&'a Member], verdict: &mut Verdict) -> Vec<Vec<&'a Member>> {
    let names = &demand.rules.affinity_groups;
    if names.is_empty() {
        return vec![eligible.to_vec()];
    }
    for m in eligible.iter().filter(|m| !names.iter().flatten().any(|n| *n == m.name)) {
        verdict.why.insert(m.name.clone(), "in none of the affinity groups".into());
    }
    names.iter().map(|group| eligible.iter().copied().filter(|m| group.contains(&m.name)).collect()).collect()
}

/// Room for the demand in `member`, its own pods counted as free.
fn room(demand: &Demand, member: &Member) -> i32 {
    let own = demand.current.get(&member.name).copied().unwrap_or(0);
    member.free.plus(&demand.each, own).holds(&demand.each)
}

fn place_group(demand: &Demand, group: &[&Member], wanted: i32, verdict: &mut Verdict) -> BTreeMap<String, i32> {
    let group = match choose_domains(demand, group, verdict) {
        Ok(group) => group,
        Err(why) => {
            for m in group {
                verdict.why.insert(m.name.clone(), why.clone());
            }
            return BTreeMap::new();
        }
    };
    let placed =
        if duplicates(demand) { duplicate(demand, &group, wanted) } else { spread_out(demand, &group, wanted) };
    for m in &group {
        let (n, room) = (placed.get(&m.name).copied().unwrap_or(0), room(demand, m));
        let why = if n == 0 && room < wanted {
            format!("room for {room} of {wanted} replicas")
        } else {
            format!("{n} of {wanted} replicas")
        };
        verdict.why.insert(m.name.clone(), why);
    }
    placed
}

/// Everything on each cluster that has room for it. A cluster that runs it already keeps it.
fn duplicate(demand: &Demand, group: &[&Member], wanted: i32) -> BTreeMap<String, i32> {
    group.iter().filter(|m| room(demand, m) >= wanted).map(|m| (m.name.clone(), wanted)).collect()
}

fn spread_out(demand: &Demand, group: &[&Member], wanted: i32) -> BTreeMap<String, i32> {
    let division = &demand.rules.division;
    let skews: Vec<(&Spread, i32)> =
        demand.rules.spread.iter().filter_map(|s| Some((s, i32::try_from(s.max_skew?).unwrap_or(i32::MAX)))).collect();
    // Weights are kept to exactly; by capacity, what runs stays where it is and only the difference is divided.
    let keeps = division.mode != DivisionMode::Weighted && skews.is_empty();
    let mut left = wanted;
    let shares: Vec<Share<'_>> = group
        .iter()
        .map(|m| {
            let cap = cap(demand, m);
            let own = demand.current.get(&m.name).copied().unwrap_or(0);
            let kept = if keeps { own.min(cap).min(left).max(0) } else { 0 };
            left -= kept;
            let weight = match division.mode {
                DivisionMode::Weighted if division.weights.is_empty() => 1,
                DivisionMode::Weighted => u64::from(division.weights.get(&m.name).copied().unwrap_or(1)),
                _ => u64::try_from(cap.max(0)).unwrap_or(0),
            };
            Share { name: &m.name, weight, cap, kept, domains: skews.iter().map(|(s, _)| domain(m, &s.by)).collect() }
        })
        .collect();
    if division.mode == DivisionMode::Aggregated {
        return aggregate(demand, group, &shares, left);
    }
    let skews: Vec<i32> = skews.into_iter().map(|(_, skew)| skew).collect();
    divide(&demand.uid, &shares, left, &skews)
}

/// A Suspect or Stabilising cluster keeps what it has and gets nothing new.
fn cap(demand: &Demand, member: &Member) -> i32 {
    let room = room(demand, member);
    match member.standing {
        Standing::Ready => room,
        _ => room.min(demand.current.get(&member.name).copied().unwrap_or(0)),
    }
}

/// As few clusters as can hold it: those that run it first, then the best by score.
fn aggregate(demand: &Demand, group: &[&Member], shares: &[Share<'_>], mut left: i32) -> BTreeMap<String, i32> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&i| {
        let s = &shares[i];
        (s.kept == 0, std::cmp::Reverse((s.cap, score::total(demand, group[i]), tie(&demand.uid, s.name))))
    });
    let mut placed = BTreeMap::new();
    for i in order {
        let s = &shares[i];
        let more = (s.cap - s.kept).clamp(0, left);
        left -= more;
        if s.kept + more > 0 {
            placed.insert(s.name.to_owned(), s.kept + more);
        }
    }
    placed
}

fn domain<'a>(member: &'a Member, by: &str) -> &'a str {
    let none = "";
    match by {
        "cluster" => &member.name,
        "region" => member.spec.region.as_deref().unwrap_or(none),
        "zone" => member.spec.zone.as_deref().unwrap_or(none),
        "provider" => member.spec.provider.as_deref().unwrap_or(none),
        label => member.labels.get(label).map_or(none, String::as_str),
    }
}

/// The members that remain when each spread rule's `max` domains are chosen, best domains first.
///
/// # Errors
/// Says which rule's `min` can't be met.
fn choose_domains<'a>(demand: &Demand, group: &[&'a Member], verdict: &mut Verdict) -> Result<Vec<&'a Member>, String> {
    let mut left: Vec<&Member> = group.iter().copied().filter(|m| cap(demand, m) > 0).collect();
    for m in group.iter().filter(|m| cap(demand, m) <= 0) {
        verdict.why.insert(m.name.clone(), "no room".into());
    }
    for rule in &demand.rules.spread {
        let mut best: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
        for m in &left {
            let entry = best.entry(domain(m, &rule.by)).or_default();
            *entry = (*entry).max((score::total(demand, m), tie(&demand.uid, &m.name)));
        }
        if let Some(min) = rule.min.filter(|min| (best.len() as u64) < u64::from(*min)) {
            return Err(format!("spread by `{}` needs {min} domains, {} can take it", rule.by, best.len()));
        }
        let Some(max) = rule.max else { continue };
        let mut ordered: Vec<(&str, (u32, u64))> = best.into_iter().collect();
        ordered.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
        let chosen: Vec<&str> = ordered.into_iter().take(max as usize).map(|(d, _)| d).collect();
        for m in left.iter().filter(|m| !chosen.contains(&domain(m, &rule.by))) {
            verdict.why.insert(m.name.clone(), format!("spread by `{}` takes at most {max} domains", rule.by));
        }
        left.retain(|m| chosen.contains(&domain(m, &rule.by)));
    }
    Ok(left)
}
