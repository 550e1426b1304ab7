//! Every seed of the fuzzers, and every finding that was fixed, played through the functions that they fuzz.
//!
//! In: `fuzz/seeds/<target>/`. A panic is a rule that does not hold; it says which file.

#![allow(clippy::unwrap_used, reason = "a folder that can't be read ends the test")]

use std::path::{Path, PathBuf};

use atoll_gateway::fuzzing::TARGETS;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn every_seed_keeps_the_rules() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, fuzz) in TARGETS {
        let all = files(&seeds.join(target));
        assert!(all.len() >= 5, "{target} has too few seeds");
        assert!(seeds.join("../fuzz_targets").join(format!("{target}.rs")).is_file(), "{target} has no program");
        for file in all {
            let octets = std::fs::read(&file).unwrap();
            let kept = std::panic::catch_unwind(|| fuzz(&octets));
            assert!(kept.is_ok(), "{}", file.display());
        }
    }
}
