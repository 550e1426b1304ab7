//! What a Bundle shows of itself: a line for each cluster, a summary, conditions. Pure.

use std::collections::BTreeMap;

use atoll_api::kinds::{BundleCluster, BundleStatus};
use atoll_api::topology::BundleReport;
use jiff::Timestamp;

use super::model::Standing;
use crate::conditions::{Found, merge};

/// What is known of a Bundle in one cluster, for its line.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// What it is told; `None`: not there.
    pub(super) replicas: Option<i32>,
    pub(super) divided: bool,
    pub(super) leaving: bool,
    pub(super) standing: Option<Standing>,
    pub(super) was_lost: bool,
    pub(super) revision: String,
    pub(super) report: Option<BundleReport>,
    pub(super) waits: Option<String>,
    pub(super) why: Option<String>,
}

fn state(line: &Line) -> (&'static str, Option<String>) {
    let report = line.report.as_ref().filter(|r| !line.revision.is_empty() && r.revision == line.revision);
    let said = |r: &BundleReport| r.message.clone();
    if line.standing == Some(Standing::Lost) && (line.was_lost || line.replicas.is_some()) {
        return ("Lost", Some("nothing is heard of it".into()));
    }
    if line.was_lost {
        return ("Lost", Some("ready again; takes work when failback.stabilise has passed".into()));
    }
    let Some(_) = line.replicas else { return ("Excluded", line.why.clone()) };
    if line.leaving {
        return ("Leaving", Some("stays until the others are ready".into()));
    }
    if let Some(waits) = &line.waits {
        return ("Placed", Some(waits.clone()));
    }
    match report {
        Some(r) if r.applied && r.ready => ("Ready", said(r)),
        Some(r) if r.applied => ("Applied", said(r).or_else(|| line.why.clone())),
        Some(r) if r.message.is_some() => ("Failed", said(r)),
        _ => ("Placed", line.why.clone()),
    }
}

/// The status of a Bundle that was accepted: what there is to say of that, and why nothing is moved, if so.
pub(super) fn status(
    old: &BundleStatus,
    lines: &BTreeMap<String, Line>,
    unplaced: i32,
    (accepted, hold): (&str, Option<&str>),
    generation: Option<i64>,
    now: Timestamp,
) -> BundleStatus {
    let clusters: Vec<BundleCluster> = lines.iter().map(|(name, line)| cluster(name, line)).collect();
    let placed = lines.values().filter(|l| l.replicas.is_some() && !l.leaving).count();
    let conditions = [
        Found::new("Accepted", true, "Accepted", accepted),
        placed_condition(placed, unplaced, hold),
        ready_condition(&clusters, unplaced),
    ];
    let summary: Vec<String> = clusters
        .iter()
        .filter(|c| c.state != "Excluded")
        .map(|c| match (c.replicas, c.ready) {
            (Some(n), ready) if c.state != "Lost" => format!("{} {}/{n}", c.name, ready.unwrap_or(0)),
            _ => format!("{} {}", c.name, c.state),
        })
        .collect();
    BundleStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, conditions, generation, now),
        summary: summary.join(", "),
        clusters,
        unplaced: Some(unplaced).filter(|n| *n > 0),
    }
}

/// The status of a Bundle that was not: what runs is left as it is.
pub(super) fn rejected(old: &BundleStatus, why: &str, generation: Option<i64>, now: Timestamp) -> BundleStatus {
    let accepted = Found::new("Accepted", false, "Invalid", why);
    BundleStatus {
        conditions: merge(&old.conditions, [accepted], generation, now),
        observed_generation: generation,
        ..old.clone()
    }
}

fn cluster(name: &str, line: &Line) -> BundleCluster {
    let (state, message) = state(line);
    let shown = line.replicas.filter(|_| line.divided);
    BundleCluster {
        name: name.to_owned(),
        state: state.to_owned(),
        replicas: shown,
        // What a lost cluster said last is no news.
        ready: shown.filter(|_| state != "Lost").and(line.report.as_ref()).map(|r| r.ready_replicas),
        revision: line.report.as_ref().map(|r| r.revision.clone()).filter(|r| !r.is_empty()),
        message: message.filter(|m| !m.is_empty()),
    }
}

fn placed_condition(placed: usize, unplaced: i32, hold: Option<&str>) -> Found {
    match (hold, placed, unplaced) {
        (Some(hold), ..) => Found::unknown("Placed", "Held", hold),
        (None, 0, _) => {
            Found::new("Placed", false, "NoClusterFits", "no cluster can take it; each cluster's line says why")
        }
        (None, _, 0) => Found::new("Placed", true, "Placed", format!("on {placed} clusters")),
        (None, _, n) => Found::new("Placed", false, "NoRoom", format!("{n} replicas found no place")),
    }
}

fn ready_condition(clusters: &[BundleCluster], unplaced: i32) -> Found {
    let there = |state: &str| clusters.iter().filter(|c| c.state == state).count();
    let wanted = clusters.iter().filter(|c| matches!(c.state.as_str(), "Placed" | "Applied" | "Ready" | "Failed"));
    let missing: Vec<&str> = wanted.filter(|c| c.state != "Ready").map(|c| c.name.as_str()).collect();
    match (there("Ready"), missing.as_slice(), unplaced) {
        (0, ..) => Found::new("Ready", false, "NotReady", "ready nowhere"),
        (_, [], 0) => Found::new("Ready", true, "Ready", "ready wherever it is placed"),
        (_, [], n) => Found::new("Ready", false, "NoRoom", format!("{n} replicas found no place")),
        (_, missing, _) => Found::new("Ready", false, "Partly", format!("not ready in {}", missing.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_so_in_the_cluster() {
        let report = BundleReport {
            revision: "r1".into(),
            applied: true,
            ready: true,
            ready_replicas: 2,
            ..BundleReport::default()
        };
        let base = Line {
            replicas: Some(2),
            divided: true,
            standing: Some(Standing::Ready),
            revision: "r1".into(),
            report: Some(report.clone()),
            ..Line::default()
        };
        let failed = BundleReport { applied: false, ready: false, message: Some("refused".into()), ..report.clone() };
        for (name, line, expected) in [
            ("ready", base.clone(), "Ready"),
            ("old revision", Line { revision: "r2".into(), ..base.clone() }, "Placed"),
            ("not ready", Line { report: Some(BundleReport { ready: false, ..report }), ..base.clone() }, "Applied"),
            ("refused", Line { report: Some(failed), ..base.clone() }, "Failed"),
            ("lost", Line { standing: Some(Standing::Lost), ..base.clone() }, "Lost"),
            ("back", Line { standing: Some(Standing::Stabilising), was_lost: true, ..base.clone() }, "Lost"),
            ("leaving", Line { leaving: true, ..base.clone() }, "Leaving"),
            ("elsewhere", Line { replicas: None, ..base.clone() }, "Excluded"),
        ] {
            assert_eq!(state(&line).0, expected, "{name}");
        }
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let lines = BTreeMap::from([("eu".to_owned(), base)]);
        let first = status(&BundleStatus::default(), &lines, 0, ("", None), Some(1), now);
        assert_eq!(first.summary, "eu 2/2");
        assert!(first.conditions.iter().all(|c| c.status == "True"), "{:?}", first.conditions);
    }
}
