//! A run: zones of a seed in every server, so many questions, and what came of them.
//!
//! In: a plan. Out: a report. Questions go out in batches, to every server at the same time, so that nobody waits for the slowest one's sum.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::Result;
use crate::atoll::Atoll;
use crate::compare::compare;
use crate::lanes::{self, Replies};
use crate::peers::{self, Running};
use crate::queries::{Query, query};
use crate::reply::{Reply, read};
use crate::reviewed::{Case, Reviewed};
use crate::zones::{Zone, zones};

const BATCH: u64 = 4096;
/// Examples that are shown of what nobody has reviewed.
const SHOWN_MAX: usize = 60;
/// Unreviewed differences at which a run ends early.
const UNREVIEWED_MAX: u64 = 20_000;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many questions.
    pub queries: u64,
    /// Which zones, which questions.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Questions asked.
    pub queries: u64,
    /// Questions to which every peer said what we did.
    pub same: u64,
    /// Differences by peer and entry of the reviewed list.
    pub reviewed: BTreeMap<String, u64>,
    /// Differences that nobody has reviewed.
    pub unreviewed: u64,
    /// What they are, by peer and words.
    pub kinds: BTreeMap<String, u64>,
    /// Some of them, whole.
    pub examples: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for example in &self.examples {
            writeln!(f, "{example}")?;
        }
        writeln!(f, "{} questions, {} answered by all alike", self.queries, self.same)?;
        for (entry, count) in &self.reviewed {
            writeln!(f, "  reviewed    {count:>9}  {entry}")?;
        }
        for (kind, count) in &self.kinds {
            writeln!(f, "  UNREVIEWED  {count:>9}  {kind}")?;
        }
        writeln!(f, "{} differences that nobody has reviewed", self.unreviewed)
    }
}

impl Report {
    /// What came of this run and another one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.queries += other.queries;
        self.same += other.same;
        self.unreviewed += other.unreviewed;
        for (own, others) in [(&mut self.reviewed, other.reviewed), (&mut self.kinds, other.kinds)] {
            for (name, count) in others {
                *own.entry(name).or_default() += count;
            }
        }
        self.examples.extend(other.examples);
        self.examples.truncate(SHOWN_MAX);
        self
    }
}

/// Runs it.
///
/// # Errors
/// When a server is missing, does not load the zones or can't be asked.
pub async fn run(plan: Plan) -> Result<Report> {
    let (zones, reviewed) = (zones(plan.seed), Reviewed::list()?);
    let atoll = Atoll::start(&zones).await?;
    let at = atoll.at;
    let report = tokio::task::spawn_blocking(move || -> Result<Report> {
        let folder = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (n, zone) in zones.iter().enumerate() {
            let path = folder.path().join(format!("{n}.zone"));
            let text = if zone.signed { crate::signed::file(at, zone)? } else { zone.file.clone() };
            std::fs::write(&path, text)?;
            files.push(path);
        }
        let peers = peers::start(folder.path(), &zones, &files)?;
        ask(plan, &zones, &reviewed, at, &peers)
    });
    let report = report.await?;
    atoll.end().await?;
    report
}

fn ask(plan: Plan, zones: &[Zone], reviewed: &Reviewed, atoll: SocketAddr, peers: &[Running]) -> Result<Report> {
    let mut report = Report::default();
    let servers: Vec<SocketAddr> = std::iter::once(atoll).chain(peers.iter().map(|peer| peer.at)).collect();
    let mut from = 0;
    while from < plan.queries && report.unreviewed < UNREVIEWED_MAX {
        let to = plan.queries.min(from + BATCH);
        let mut queries: Vec<Query> = (from..to).map(|n| query(zones, plan.seed, n)).collect();
        // What may get no reply goes last: it is waited for once.
        queries.sort_by_key(|q| (q.stream, q.may_be_dropped()));
        let packets: Vec<Vec<u8>> = queries.iter().map(|q| q.question.packet()).collect();
        let datagrams = queries.iter().filter(|q| !q.stream).count();
        let all: Result<Vec<Replies>> = std::thread::scope(|scope| {
            let one = |server: SocketAddr| {
                let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
                scope.spawn(move || -> Result<Replies> {
                    let mut replies = lanes::udp(server, &packets[..datagrams])?;
                    replies.extend(lanes::tcp(server, &packets[datagrams..])?);
                    Ok(replies)
                })
            };
            let threads: Vec<_> = servers.iter().map(|server| one(*server)).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a lane has panicked")?).collect()
        });
        let all = all?;
        for (n, query) in queries.iter().enumerate() {
            judge(
                query,
                zones,
                reviewed,
                peers,
                &all.iter().map(|replies| replies[n].as_deref()).collect::<Vec<_>>(),
                &mut report,
            );
        }
        from = to;
    }
    Ok(report)
}

/// Compares what every server said to one question.
fn judge(
    query: &Query,
    zones: &[Zone],
    reviewed: &Reviewed,
    peers: &[Running],
    said: &[Option<&[u8]>],
    report: &mut Report,
) {
    report.queries += 1;
    let replies: Vec<Option<Reply>> = said.iter().map(|octets| octets.and_then(read)).collect();
    let mut same = true;
    for (peer, (octets, theirs)) in peers.iter().zip(said.iter().zip(&replies).skip(1)) {
        let ours = replies[0].as_ref();
        let mut differs = compare(ours, theirs.as_ref());
        for (whose, octets, reply) in [("ours", said[0], ours), ("theirs", *octets, theirs.as_ref())] {
            if octets.is_some() && reply.is_none() {
                differs.insert(format!("unreadable {whose}"));
            }
        }
        same &= differs.is_empty();
        let case = Case { query, zones, ours, theirs: theirs.as_ref() };
        reviewed.explain(peer.name, &case, &mut differs, &mut report.reviewed);
        if differs.is_empty() {
            continue;
        }
        report.unreviewed += 1;
        let words = differs.iter().cloned().collect::<Vec<_>>().join(", ");
        let kind = report.kinds.entry(format!("{} {words}", peer.name)).or_default();
        *kind += 1;
        if *kind <= 1 && report.examples.len() < SHOWN_MAX {
            report.examples.push(example(query, peer.name, &words, ours, theirs.as_ref()));
        }
    }
    report.same += u64::from(same);
}

fn example(query: &Query, peer: &str, words: &str, ours: Option<&Reply>, theirs: Option<&Reply>) -> String {
    let q = &query.question;
    let how = format!("flags {:02x?} opcode {} class {} {:?} {:?}", q.flags, q.opcode, q.class, q.edns, q.odd);
    let by = if query.stream { "tcp" } else { "udp" };
    let mut text =
        format!("--- question {}: {} TYPE{} {by} {how}\n    {peer}: {words}", query.number, q.name.text(), q.kind);
    for (whose, reply) in [("atoll", ours), (peer, theirs)] {
        let Some(r) = reply else {
            text += &format!("\n  {whose}: nothing");
            continue;
        };
        text += &format!(
            "\n  {whose}: {} {:02x} {:02x} {} octets {:?}",
            crate::compare::rcode(r.rcode),
            r.high,
            r.low,
            r.length,
            r.opt
        );
        for (section, name) in r.sections.iter().zip(["answer", "authority", "additional"]) {
            for record in section.iter().take(6) {
                text += &format!("\n    {name:<10} {record}");
            }
            if section.len() > 6 {
                text += &format!("\n    {name:<10} and {} more", section.len() - 6);
            }
        }
    }
    text
}
