//! Rollout in waves: a cluster gets a change when every cluster of the waves before it runs it and is ready. Pure.

use std::collections::BTreeMap;

use atoll_api::kinds::{ClusterSpec, Rollout};

/// A cluster that a Bundle is rendered for.
pub(super) struct Step<'a> {
    pub(super) spec: &'a ClusterSpec,
    /// It runs what it is to run now, and is ready.
    pub(super) done: bool,
    /// What it was told last differs from what it is to run now (or it was told nothing).
    pub(super) differs: bool,
}

/// The clusters that have to wait, with what they wait for.
pub(super) fn waiting(rollout: Option<&Rollout>, steps: &BTreeMap<&str, Step<'_>>) -> BTreeMap<String, String> {
    let Some(rollout) = rollout.filter(|r| !r.waves.is_empty()) else { return BTreeMap::new() };
    let wave = |name: &str, spec: &ClusterSpec| {
        let named = |w: &Vec<String>| w.iter().any(|word| word == name || *word == spec.environment);
        // Clusters of no wave come last.
        rollout.waves.iter().position(named).unwrap_or(rollout.waves.len())
    };
    let undone = steps.iter().filter(|(_, s)| !s.done).map(|(n, s)| (wave(n, s.spec), *n)).min();
    let Some((first, blocker)) = undone else { return BTreeMap::new() };
    let late = steps.iter().filter(|(n, s)| s.differs && wave(n, s.spec) > first);
    late.map(|(n, _)| ((*n).to_owned(), format!("waits for wave {}: `{blocker}` is not ready with it", first + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_starts_when_the_one_before_is_ready() {
        let spec = |e: &str| ClusterSpec { environment: e.into(), ..ClusterSpec::default() };
        let (dev, test, prod) = (spec("dev"), spec("test"), spec("prod"));
        let rollout = Rollout { waves: vec![vec!["dev".into()], vec!["test".into()], vec!["eu".into()]] };
        for (done, waits) in [
            ([false, false, false], vec!["eu", "test", "us"]),
            ([true, false, false], vec!["eu", "us"]),
            ([true, true, false], vec!["us"]),
            ([true, true, true], vec![]),
        ] {
            let step = |spec, done: bool| Step { spec, done, differs: !done };
            let steps = BTreeMap::from([
                ("dev", step(&dev, done[0])),
                ("test", step(&test, done[1])),
                ("eu", step(&prod, done[2])),
                ("us", step(&prod, false)),
            ]);
            assert_eq!(waiting(Some(&rollout), &steps).keys().collect::<Vec<_>>(), waits, "{done:?}");
            assert!(waiting(None, &steps).is_empty());
        }
    }
}
