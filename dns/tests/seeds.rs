//! Every seed of the fuzzers, and every finding that was fixed, played through the functions that they fuzz.
//!
//! In: `fuzz/seeds/<target>/`. A panic is a rule that does not hold; it says which file.

#![allow(clippy::unwrap_used, reason = "a folder that can't be read ends the test")]

use std::path::{Path, PathBuf};

use atoll_dns::fuzzing::TARGETS;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn every_seed_keeps_the_rules() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for folder in files(&seeds) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a folder is a target's");
        for file in files(&folder) {
            let octets = std::fs::read(&file).unwrap();
            let kept = std::panic::catch_unwind(|| target(&octets));
            assert!(kept.is_ok(), "{}", file.display());
        }
    }
    for (target, _) in TARGETS {
        assert!(files(&seeds.join(target)).len() >= 5, "{target} has too few seeds");
        let program = seeds.join("../fuzz_targets").join(format!("{target}.rs"));
        assert!(program.is_file(), "{target} has no program");
    }
}
