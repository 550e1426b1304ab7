//! `dig`, and its answer read: status, records, extended error.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use crate::said;

/// A question as it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) tcp: bool,
    /// The address to ask from.
    pub(crate) source: Option<IpAddr>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …
    pub(crate) status: String,
    pub(crate) answer: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    /// The extended errors' codes.
    pub(crate) ede: Vec<u16>,
    pub(crate) took: Duration,
}

impl Answer {
    /// The addresses in it.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.answer.iter().filter_map(|record| record.data.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    /// Its addresses, where there are any.
    pub(crate) fn some(&self) -> Result<Vec<IpAddr>> {
        let all = self.addresses();
        ensure!(self.status == "NOERROR" && !all.is_empty(), "no addresses: {self:?}");
        Ok(all)
    }

    /// That the name is not there, with the zone's SOA.
    pub(crate) fn absent(&self, zone: &str) -> Result<()> {
        ensure!(self.status == "NXDOMAIN", "should be NXDOMAIN: {self:?}");
        let soa = self.authority.iter().any(|record| record.kind == "SOA" && record.owner == format!("{zone}."));
        ensure!(soa, "no SOA of {zone} in the authority section: {self:?}");
        Ok(())
    }
}

/// Asks a server; `command` is `dig` itself or what runs it elsewhere.
pub(crate) async fn dig(mut command: Command, server: SocketAddr, question: &Question<'_>) -> Result<Answer> {
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    if let Some(source) = question.source {
        command.args(["-b", &source.to_string()]);
    }
    command.args([question.name, question.kind, "+time=4", "+tries=1", "+noall", "+comments", "+answer", "+authority"]);
    command.arg(if question.tcp { "+tcp" } else { "+notcp" });
    let began = Instant::now();
    let text = said::run(command).await?.ok()?;
    let mut answer = parse(&text).with_context(|| format!("dig said:\n{text}"))?;
    answer.took = began.elapsed();
    Ok(answer)
}

fn parse(text: &str) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut section = "";
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            answer.status = rest.split(',').next().unwrap_or_default().to_owned();
        } else if let Some((_, rest)) = line.split_once("EDE: ") {
            let code = rest.split(|c: char| !c.is_ascii_digit()).next();
            answer.ede.extend(code.and_then(|code| code.parse::<u16>().ok()));
        } else if let Some(name) = line.strip_prefix(";; ").and_then(|rest| rest.strip_suffix(" SECTION:")) {
            section = if name == "ANSWER" { "answer" } else { "authority" };
        } else if !line.starts_with(';') && !line.trim().is_empty() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [owner, _ttl, _class, kind, data @ ..] = words.as_slice() else { continue };
            let record = Record { owner: owner.to_lowercase(), kind: (*kind).to_owned(), data: data.join(" ") };
            if section == "answer" { answer.answer.push(record) } else { answer.authority.push(record) }
        }
    }
    ensure!(!answer.status.is_empty(), "no status");
    Ok(answer)
}
