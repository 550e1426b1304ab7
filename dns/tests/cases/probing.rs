//! What scenarios do with health checks and with the files that say where clients are.
//!
//! In: a step. Out: the lines that did not hold. The words are in `main.rs`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::backend::{Backend, Protocol};
use crate::expect::number;
use crate::play::{Scene, Wrong};
use crate::script::Step;
use crate::stage::clock::looked;

#[path = "../../src/geo/mmdb/write.rs"]
mod write;

/// Between two looks at a probe that is waited for.
const STRIDE: Duration = Duration::from_millis(250);
/// Looks at a probe that is on its way.
const PATIENCE: usize = 400;
/// So long a probe is waited for.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// Looks until what a probe found is known everywhere.
const LOOKS: usize = 6;

impl Scene {
    /// `backend NAME http at IP,…` · `backend NAME ill IP,…`.
    pub(crate) async fn backend(&mut self, step: &Step, name: &str, rest: &[&str]) -> Result<(), Wrong> {
        let bad = |why: String| (step.line, why);
        let ips = |text: &str| -> Result<Vec<IpAddr>, Wrong> {
            text.split(',').map(|ip| ip.parse().map_err(|_| bad(format!("`{ip}` is no address")))).collect()
        };
        match rest {
            [protocol, "at", at] => {
                let protocol = Protocol::of(protocol).ok_or_else(|| bad(format!("no protocol `{protocol}`")))?;
                let backend = Backend::new(protocol, &ips(at)?).await;
                self.words.insert(name.to_owned(), backend.port.to_string());
                self.backends.insert(name.to_owned(), backend);
            }
            [word, at] => {
                let backend = self.backends.get_mut(name).ok_or_else(|| bad(format!("no backend `{name}`")))?;
                for ip in ips(at)? {
                    backend.turn(ip, word).await.map_err(bad)?;
                }
            }
            _ => return Err(bad("backend NAME PROTOCOL at IP,… or backend NAME well|ill|gone IP,…".to_owned())),
        }
        Ok(())
    }

    /// `probed NAME IP N`: until it was probed N times more, and that is known.
    pub(crate) async fn probed(&mut self, step: &Step, name: &str, ip: &str, times: &str) -> Result<(), Wrong> {
        let bad = |why: String| (step.line, why);
        let ip: IpAddr = ip.parse().map_err(|_| bad(format!("`{ip}` is no address")))?;
        let times = number(times).map_err(bad)?;
        self.stage().await;
        let probes = |scene: &Self| scene.backends.get(name).map_or(0, |backend| backend.probes(ip));
        let (before, until) = (probes(self), Instant::now() + PROBE_MAX);
        while probes(self) < before + times {
            if Instant::now() > until {
                return Err(bad(format!("it was probed {} times only", probes(self) - before)));
            }
            // The clock stands while a probe is on its way: that takes real time.
            let mut patience = PATIENCE;
            while patience > 0 && self.backends.values().any(Backend::busy) {
                looked().await;
                patience -= 1;
            }
            tokio::time::advance(STRIDE).await;
            self.heard().await;
        }
        self.found().await;
        // What probes found is judged at the next look.
        tokio::time::advance(STRIDE).await;
        self.heard().await;
        self.found().await;
        Ok(())
    }

    /// Until what is on its way is known: probes take real time.
    async fn found(&self) {
        for _ in 0..LOOKS {
            looked().await;
        }
    }

    /// What the hub is told of health checks: `IP well|ill|nothing`.
    pub(crate) async fn told(&mut self, step: &Step) -> Vec<Wrong> {
        let report = self.stage().await.report.borrow().clone();
        let mut wrong = Vec::new();
        for (line, text) in &step.block {
            let (ip, wanted) = text.trim().split_once(' ').unwrap_or_default();
            let found = report.checks.iter().find(|(key, _)| key.contains(&format!(" {ip}:")));
            let got = found.map_or("nothing", |(_, well)| if *well { "well" } else { "ill" });
            if got != wanted {
                wrong.push((*line, format!("{ip} is told as {got}: {:?}", report.checks)));
            }
        }
        wrong
    }

    /// `file cidrMap` and `file mmdb`, as they are from now on; the lines of a database are `RANGE JSON`, wider ranges first.
    pub(crate) async fn file(&mut self, step: &Step, which: &str) -> Result<(), Wrong> {
        let bad = |why: String| (step.line, why);
        match which {
            "cidrMap" => {
                let text: String = step.block.iter().map(|(_, line)| format!("{}\n", line.trim())).collect();
                self.map.send_replace(Some(Bytes::from(text)));
            }
            "mmdb" => {
                let line = |text: &str| -> Option<(String, Value)> {
                    let (range, record) = text.trim().split_once(' ')?;
                    Some((range.to_owned(), serde_json::from_str(record).ok()?))
                };
                let ranges: Option<Vec<_>> = step.block.iter().map(|(_, text)| line(text)).collect();
                let ranges = ranges.ok_or_else(|| bad("a line is RANGE JSON".to_owned()))?;
                let ranges: Vec<(&str, Value)> = ranges.iter().map(|(range, v)| (range.as_str(), v.clone())).collect();
                self.mmdb.send_replace(Some(Bytes::from(write::database("Atoll-Test", &ranges))));
            }
            "mmdb-broken" => drop(self.mmdb.send_replace(Some(Bytes::from_static(b"no database")))),
            _ => return Err(bad(format!("no file `{which}`"))),
        }
        // It is read by a thread of its own.
        self.stage().await;
        self.found().await;
        Ok(())
    }
}
