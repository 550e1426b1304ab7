//! The written cases of `gateway/tests/smuggling` and mutations of them through Atoll, nginx and HAProxy, each before an endpoint that keeps
//! every octet: where did that see something else than what everybody reads in what was sent?
//!
//! ```text
//!   cases ─► mutate (seeded) ─► lane: the same octets to each proxy ─► its endpoint's octets ─► judge (against a reading of RFC 9112) ─► report
//! ```
//!
//! In: how many, a seed, a folder. Out: figures by proxy, and in the folder every input that a proxy's endpoint read otherwise. Fails where
//! that was Atoll's. Lanes work beside one another; each has its own ports and endpoints, so that what an endpoint got belongs to one input.

#![allow(clippy::unwrap_used, reason = "whatever goes wrong ends the comparison")]

#[path = "../../../../gateway/tests/smuggling/cases.rs"]
#[allow(dead_code, reason = "what is expected of a case is looked at by the gateway's tests")]
mod cases;
#[path = "../../../../gateway/tests/smuggling/origin.rs"]
mod origin;
#[path = "../../../../gateway/tests/smuggling/reading.rs"]
mod reading;

mod judge;
mod lane;
mod mutate;
mod peers;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use self::judge::Verdict;
use self::lane::Lane;
use self::mutate::{Chance, mutate};
use self::peers::{PEERS, Peers};
use crate::{Result, say};

/// Inputs at once.
const LANES: usize = 48;
/// What a mutation is made of is at most so long.
const BASE_BYTES_MAX: usize = 2048;
/// Inputs of a proxy that are written down.
const KEPT_MAX: usize = 200;

/// What came of all inputs for one proxy.
#[derive(Debug, Default, Clone)]
struct Sum {
    alike: usize,
    refused: usize,
    otherwise: usize,
    kept: Vec<String>,
}

/// Atoll alone before one endpoint, also over TLS with a certificate that is put into `folder`, for whoever asks it.
pub(crate) async fn alone(folder: &Path) -> Result<()> {
    crate::secure::write(folder)?;
    peers::alone(folder).await
}

/// Plays `count` inputs, the written ones first.
pub(crate) async fn run(count: usize, seed: u64, folder: &Path) -> Result<()> {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gateway/tests/smuggling");
    let all: Vec<Vec<u8>> =
        cases::all(&written).iter().filter(|case| !case.h2).map(|case| cases::octets(&case.written)).collect();
    say("cases", all.len())?;
    let bases: Vec<Vec<u8>> = all.iter().filter(|case| case.len() <= BASE_BYTES_MAX).cloned().collect();
    let (all, bases) = (Arc::new(all), Arc::new(bases));
    let mut peers = Peers::start(LANES, folder).await?;
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut lanes = tokio::task::JoinSet::new();
    for lane in std::mem::take(&mut peers.lanes) {
        let (all, bases, next) = (Arc::clone(&all), Arc::clone(&bases), Arc::clone(&next));
        lanes.spawn(async move {
            let mut sums: [Sum; 3] = Default::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count + all.len() {
                    return sums;
                }
                let input = match all.get(at) {
                    Some(case) => case.clone(),
                    // Each input comes of its number alone, whoever plays it.
                    None => mutate(&bases, &mut Chance::new(seed, at)),
                };
                play(&lane, at, &input, &mut sums).await;
            }
        });
    }
    let mut sums: [Sum; 3] = Default::default();
    while let Some(done) = lanes.join_next().await {
        for (sum, more) in sums.iter_mut().zip(done?) {
            sum.alike += more.alike;
            sum.refused += more.refused;
            sum.otherwise += more.otherwise;
            sum.kept.extend(more.kept);
        }
    }
    say("inputs", count + all.len())?;
    say("seconds", began.elapsed().as_secs())?;
    for (name, sum) in PEERS.iter().zip(&sums) {
        say(name, format_args!("alike {} refused {} otherwise {}", sum.alike, sum.refused, sum.otherwise))?;
        std::fs::write(folder.join(format!("{name}.otherwise")), sum.kept.concat())?;
    }
    peers.stop().await;
    if sums[0].otherwise > 0 {
        Err("an endpoint of Atoll's read something else: see atoll.otherwise".into())
    } else {
        Ok(())
    }
}

async fn play(lane: &Lane, at: usize, input: &[u8], sums: &mut [Sum; 3]) {
    let mut verdicts = lane.play(input).await;
    // What is late counts for the next input: so whatever is strange is tried again, alone.
    for _ in 0..2 {
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Otherwise(_))) {
            lane.rest().await;
            let again = lane.play(input).await;
            for (verdict, again) in verdicts.iter_mut().zip(again) {
                if matches!(verdict, Verdict::Otherwise(_)) {
                    *verdict = again;
                }
            }
        }
    }
    for (sum, verdict) in sums.iter_mut().zip(verdicts) {
        match verdict {
            Verdict::Alike => sum.alike += 1,
            Verdict::Refused => sum.refused += 1,
            Verdict::Otherwise(why) => {
                sum.otherwise += 1;
                if sum.kept.len() < KEPT_MAX {
                    let mut line = String::new();
                    let _ = writeln!(line, "{at}: {}\n    {why}", input.escape_ascii());
                    sum.kept.push(line);
                }
            }
        }
    }
}
