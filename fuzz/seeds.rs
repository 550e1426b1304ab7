//! What both crates that have fuzzers play in their tests: every seed, and every finding that was fixed, through the functions that they fuzz.
//!
//! In: `fuzz/seeds/<target>/`. A panic is a rule that does not hold; it says which file.

use std::path::{Path, PathBuf};

/// A fuzzer's name and what it feeds.
type Target = (&'static str, fn(&[u8]));

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Plays the seeds of each of `targets`; each has at least five, and a program.
pub(crate) fn play(targets: &[Target]) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, fuzz) in targets {
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
