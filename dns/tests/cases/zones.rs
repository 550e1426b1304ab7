//! What scenarios do with own zones: updates, transfers, secondaries, what the hub has stored.
//!
//! In: a step. Out: the lines that did not hold. The words are in `main.rs`.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use crate::expect::{Came, differences, number};
use crate::hub::Manner;
use crate::play::{Scene, Wrong};
use crate::script::Step;
use crate::secondary::Secondary;
use crate::signing::{self, Sent};
use crate::stage::Stage;
use crate::stage::ways::{WAYS, Way, dial, receive, send};
use crate::wording::{transfer, update};

/// How long a stream may say nothing before a transfer is over.
const QUIET: Duration = Duration::from_secs(3);
/// How long secondaries are waited for.
const SOON: Duration = Duration::from_secs(3);

/// The transports that a step goes over.
pub(crate) fn ways<'a>(step: &'a Step, default: &'a str) -> impl Iterator<Item = &'static Way> + use<'a> {
    let over = step.option("over").unwrap_or(default);
    WAYS.iter().filter(move |way| over.is_empty() || over.split(',').any(|word| word == way.transport))
}

/// `text` on one transport: `{way}` is its name.
pub(crate) fn on(text: &str, way: &Way) -> String {
    text.replace("{way}", way.transport)
}

impl Scene {
    /// `hub stores|keeps|hangs|away|full`.
    pub(crate) fn hub_turns(&self, word: &str) -> Result<(), String> {
        self.storing.behave(match word {
            "stores" => Manner::Stores,
            "keeps" => Manner::Keeps,
            "hangs" => Manner::Hangs,
            "away" => Manner::Away,
            "full" => Manner::Full,
            _ => return Err(format!("the hub can't be `{word}`")),
        });
        Ok(())
    }

    /// One message by each transport, each a change of its own.
    pub(crate) async fn update(&mut self, step: &Step, zone: &str) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let keys = self.keys.clone();
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, "") {
            let mut rest = Vec::new();
            let message = update(step, zone, way.transport, &mut rest).map_err(bad)?;
            let mut sent = signing::sent(step, &keys, message).map_err(bad)?;
            let start = Instant::now();
            let octets = (way.ask)(stage, &from, &sent.octets).await;
            let signature = octets.as_deref().map(|octets| sent.judge(octets)).unwrap_or_default();
            let came = Came { octets, took: start.elapsed(), signature };
            let more = differences(&rest, &came).into_iter();
            wrong.extend(more.map(|(line, why)| (line, format!("over {}: {why}", way.transport))));
        }
        Ok(wrong)
    }

    /// `stored`: what the hub has, every line of it.
    pub(crate) fn stored(&self, step: &Step) -> Vec<Wrong> {
        let mut wanted: Vec<&str> = step.block.iter().map(|(_, l)| l.trim()).filter(|l| *l != "nothing").collect();
        wanted.sort_unstable();
        let got = self.storing.stored();
        if wanted == got { Vec::new() } else { vec![(step.line, format!("it has stored {got:#?}"))] }
    }

    /// A whole zone, or its changes, over streams.
    pub(crate) async fn transfer(&mut self, step: &Step, zone: &str, kind: &str) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let keys = self.keys.clone();
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, "tcp,dot") {
            let query = transfer(step, zone, kind).map_err(bad)?;
            let mut sent = signing::sent(step, &keys, query).map_err(bad)?;
            let replies = messages(stage, way, &from, &sent.octets).await;
            let more = compare(step, &replies, &mut sent);
            wrong.extend(more.into_iter().map(|(line, why)| (line, format!("over {}: {why}", way.transport))));
        }
        Ok(wrong)
    }

    /// `secondary NAME [key=]`, `secondary NAME deaf|hears`.
    pub(crate) async fn secondary(&mut self, step: &Step, name: &str, rest: &[&str]) -> Result<(), Wrong> {
        if let Some(known) = self.secondaries.get(name) {
            known.deafen(rest == ["deaf"]);
            return Ok(());
        }
        let key = match step.option("key") {
            None => None,
            Some(key) => Some(self.keys.get(key).cloned().ok_or_else(|| (step.line, format!("no key `{key}`")))?),
        };
        let secondary = Secondary::new(key).await;
        secondary.deafen(rest == ["deaf"]);
        self.words.insert(name.to_owned(), secondary.at.to_string());
        self.secondaries.insert(name.to_owned(), secondary);
        Ok(())
    }

    /// What a secondary was told since the last time, in its order; `at least N LINE` for what is said again.
    pub(crate) async fn notified(&mut self, step: &Step, name: &str) -> Result<Vec<Wrong>, Wrong> {
        self.stage().await;
        let known = self.secondaries.get(name).ok_or_else(|| (step.line, format!("no secondary `{name}`")))?;
        let told = self.told.get(name).copied().unwrap_or(0);
        let wanted: Vec<&str> = step.block.iter().map(|(_, l)| l.trim()).filter(|l| *l != "nothing").collect();
        let holds = |got: &[String]| match wanted.as_slice() {
            [one] if one.starts_with("at least ") => {
                let (least, line) = one["at least ".len()..].split_once(' ').unwrap_or_default();
                got.iter().filter(|l| *l == line).count() >= least.parse().unwrap_or(usize::MAX)
            }
            all => got == all,
        };
        let until = Instant::now() + SOON;
        while !holds(&known.heard()[told..]) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all = known.heard();
        self.told.insert(name.to_owned(), all.len());
        let got = &all[told..];
        Ok(if holds(got) { Vec::new() } else { vec![(step.line, format!("it was told {got:?}"))] })
    }
}

/// Every message that comes for `packet`.
async fn messages(stage: &Stage, way: &Way, from: &str, packet: &[u8]) -> Vec<Vec<u8>> {
    match way.transport {
        "tcp" => match dial(from, stage.addr).await {
            Ok(stream) => stream_of(stream, packet).await,
            Err(_) => Vec::new(),
        },
        "dot" => match stage.ends().secured(from, stage.ends().tls, "dot").await {
            Ok(stream) => stream_of(stream, packet).await,
            Err(_) => Vec::new(),
        },
        _ => (way.ask)(stage, from, packet).await.into_iter().collect(),
    }
}

async fn stream_of(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    packet: &[u8],
) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    if send(&mut stream, packet).await.is_err() {
        return all;
    }
    while let Ok(Some(octets)) = timeout(QUIET, receive(&mut stream)).await {
        all.push(octets);
        if is_whole(&all) {
            break;
        }
    }
    let _ = stream.shutdown().await;
    all
}

fn records(all: &[Vec<u8>]) -> Vec<Record> {
    all.iter().filter_map(|octets| Message::from_vec(octets).ok()).flat_map(|message| message.answers).collect()
}

fn serial(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    }
}

/// RFC 5936 §2.2 and RFC 1995 §4: the newest SOA comes last; among differences once more before it.
fn is_whole(all: &[Vec<u8>]) -> bool {
    let failed = |octets: &Vec<u8>| {
        Message::from_vec(octets)
            .is_ok_and(|m| m.metadata.response_code != ResponseCode::NoError || m.answers.is_empty())
    };
    let records = records(all);
    let Some(newest) = records.first().and_then(serial) else { return all.iter().any(failed) };
    let times = records.iter().filter(|r| serial(r) == Some(newest)).count();
    let differences = records.get(1).and_then(serial).is_some_and(|next| next != newest);
    let only = records.len() == 1
        && Message::from_vec(&all[0])
            .is_ok_and(|m| m.queries.first().is_some_and(|q| q.query_type == RecordType::IXFR));
    only || times >= if differences { 3 } else { 2 }
}

/// The lines that don't hold of a transfer: all messages as one, and `serials`, `messages`, `signatures`.
fn compare(step: &Step, replies: &[Vec<u8>], sent: &mut Sent) -> Vec<Wrong> {
    let first = step.block.first().map_or(step.line, |(line, _)| *line);
    let Some(Ok(mut whole)) = replies.first().map(|octets| Message::from_vec(octets)) else {
        return vec![(first, "no reply".to_owned())];
    };
    let signatures: Vec<String> = replies.iter().map(|octets| sent.judge(octets)).collect();
    let odd = signatures.iter().find(|s| **s != signatures[0]).unwrap_or(&signatures[0]).clone();
    whole.answers = records(replies);
    let serials: Vec<String> = whole.answers.iter().filter_map(serial).map(|s| s.to_string()).collect();
    let mut wrong = Vec::new();
    let mut rest = Vec::new();
    for (line, text) in &step.block {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["serials", wanted @ ..] if *wanted != serials => wrong.push((*line, format!("serials {serials:?}"))),
            ["messages", ">=", n] if number(n).is_ok_and(|n| replies.len() < n) => {
                wrong.push((*line, format!("{} messages", replies.len())));
            }
            ["serials" | "messages", ..] => {}
            _ => rest.push((*line, text.clone())),
        }
    }
    whole.answers.retain(|r| r.record_type() != RecordType::SOA);
    let octets = whole.to_vec().ok();
    if octets.is_none() {
        // More than one message holds: what is asked of it are counts.
        let count = whole.answers.len();
        rest.retain(|(line, text)| match text.trim().strip_prefix("answer count ") {
            Some(n) if n.parse() != Ok(count) => {
                wrong.push((*line, format!("{count} records")));
                false
            }
            Some(_) => false,
            None => true,
        });
        whole.answers.clear();
    }
    let came = Came { octets: whole.to_vec().ok(), took: Duration::ZERO, signature: odd };
    wrong.extend(differences(&rest, &came));
    wrong
}
