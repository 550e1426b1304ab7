//! Asks every server the same: `atoll-differential [QUERIES] [SEED]`, a million and 1 by default; other zones for each hundred thousand.
//! `benches/differential/run` installs the peers.

use std::io::Write as _;
use std::process::ExitCode;

use atoll_differential::{Plan, Report, Result, run};

/// Questions to the zones of one seed.
const A_ROUND: u64 = 100_000;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse().unwrap_or(1));
    let (queries, seed) = (words.next().unwrap_or(1_000_000), words.next().unwrap_or(1));
    match all(queries, seed) {
        Ok(report) => {
            let _ = writeln!(std::io::stdout(), "{report}");
            if report.unreviewed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "atoll-differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all(queries: u64, seed: u64) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut whole = Report::default();
    while whole.queries < queries {
        let plan = Plan { queries: A_ROUND.min(queries - whole.queries), seed: seed + whole.queries / A_ROUND };
        let report = runtime.block_on(run(plan))?;
        // A run that ends early has seen enough.
        let ended = report.queries < plan.queries;
        whole = whole.and(report);
        writeln!(std::io::stderr(), "{} questions, {} unreviewed", whole.queries, whole.unreviewed)?;
        if ended {
            break;
        }
    }
    Ok(whole)
}
