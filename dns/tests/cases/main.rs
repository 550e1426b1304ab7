//! Scenarios: what is asked of a running server and what it must answer, as text that quotes the rule above each step.
//!
//! ```text
//!   cases/<group>/<scenario>.case ── script (lines) ── play (a stage, its stand-ins, a clock) ── expect (reply against lines)
//! ```
//!
//! A file is paragraphs of statements; the indented lines below a statement are its own. The first line of a paragraph that asks is a
//! comment: the sentence of the RFC, or the rule, that it proves. `failures/` has the ten ways in which a federation fails, by number.
//! A new group is one folder and one row in [`groups!`]. One file alone: `CASE=stale cargo test -p atoll-dns --test cases`. A failure
//! says file and line, what was wanted and what came.
//!
//! Who is there; all of it may stand anywhere and counts from there on:
//! ```text
//!   config                                   before anything is asked, after the servers it names; lines `recursion CIDR`, `upstreams SERVER…`, … (setting.rs)
//!   server eu [domain] [at 127.0.0.2]        a DNS server by script; lines `owner ttl TYPE data` (owner relative to the domain unless it
//!                                            ends in a dot), `+answer|+authority|+additional owner ttl TYPE data` (put into every reply)
//!   member prod-eu env=prod region=eu-central net=21 dns=eu,eu2 [kind=Consul] [domain=…]     a cluster with pods 127.21.0.0/16
//!   service shop/web set=prod clusters=prod-eu,prod-us [headless]                             endpoints 127.<net>.0.80
//!   fact zone/example-com                    any fact of the topology (api::facts::key); lines: its value as YAML, `$eu` the address of
//!                                            server `eu`. Again: replaced
//!   gone cluster/prod-eu                     the fact is no more
//!   agent prod-eu   ·   route prod-eu relay|direct   ·   hub silent|back
//!   key k1 SECRET [hmac-sha512] [as=NAME]    a TSIG key of clients (base64); what the server has is the fact zone-keys/ZONE
//!   secondary s1 [deaf|hears] [key=k1]       an ear for NOTIFY; `$s1` in facts is its address
//!   backend web http|https|tcp|grpc at IP,…  what health checks look at; `$web` in facts is its port
//!   file cidrMap|mmdb                        what the file says from now on: lines `RANGE region=…`, `RANGE JSON`
//! ```
//! What happens:
//! ```text
//!   behave eu well|silent|truncating|lying|spoofed|wrong-id|wrong-question|garbled|secure|bare|unready|mesos|looping|delay 300ms|code SERVFAIL
//!   advance 10s [step=100ms]                 the clock is moved; it stands still otherwise, but for what an answer waits for; by small
//!                                            steps where probes go on meanwhile, which take real time
//!   ask NAME TYPE [from=127.21.0.5] [over=udp,tcp] [flags=rd,cd,ad,do] [size=1232|none] [times=3]       over every transport by itself
//!           [crowd=20] so many at once, [proxy=IP] after a balancer's PROXY header, [cookie=client|short|long|foreign|given] (RFC 7873)
//!       rcode NXDOMAIN      flags aa rd      ede 3 23 | none      answer|authority|additional OWNER TTL TYPE DATA | none | count N
//!       edns none | do | size=1232 | scope=24 | cookie=24|none   octets <= 1232       took <= 500ms       silence (no reply at all)
//!       TTL is a number, `*` or `<=30`; `*` in DATA stands for any text. What has no line is not compared.
//!           key=k1 signs it; skew=400 by a clock that is ahead, mac=broken|short
//!       tsig ok|none|BADKEY|BADSIG|BADTIME|BADTRUNC        has|no answer|authority|additional OWNER TTL TYPE DATA: among others
//!   update example.com [key=k1] [class=CH]   lines `need [not] OWNER [TYPE [DATA]]`, `add OWNER TTL TYPE DATA`, `delete OWNER [TYPE [DATA]]`, and
//!                                            those of an ask; `{way}` in a name is the transport's name
//!   hub stores|keeps|hangs|away|full         what becomes of updates: `keeps` tells nobody of them
//!   stored                                   lines: all that the hub has stored
//!   transfer example.com AXFR|IXFR [serial=7] [key=k1] [over=tcp,dot]    lines of an ask, and `serials 9 7 9 9`, `messages >= 2`
//!   notified s1                              lines: what it was told since the last time, `at least N LINE`
//!   backend web well|ill|gone IP,…   ·   probed web IP N (until so many probes more)   ·   told: lines `IP well|ill|nothing`
//!   flood x*.example A count=1500            as many names in one moment by UDP, `*` a number; a line `answered N`: so many whole answers
//!   together [over=tcp,dot]                  lines `ask NAME TYPE`: all in one segment; `order NAME…`: so the replies come
//!   seats [over=tcp,dot,doh,doq,doh3] count=3 [from=IP]     connections of one client at once; a line `served N`
//!   linger [over=…]                          a connection after one question; a line `ended <= 3s`: so soon the server ends it
//!   asked eu                                 what `eu` was asked since the last time; lines `udp name. TYPE`, or `count N`, `at most N`,
//!                                            `ports >= N`
//!   explain NAME TYPE [from=region]          lines `has TEXT`: the decision as JSON holds it
//!   metric NAME{label="value"} >= 1
//! ```

#![allow(clippy::unwrap_used, reason = "a scenario that can't be set up ends the test")]

#[path = "../stage/mod.rs"]
mod stage;

mod backend;
mod expect;
mod hub;
mod looking;
mod play;
mod probing;
mod script;
mod secondary;
mod setting;
mod signing;
mod streams;
mod wording;
mod zones;

use std::path::{Path, PathBuf};

/// Groups of scenarios: a folder each.
macro_rules! groups {
    ($($group:ident),* $(,)?) => {
        const GROUPS: &[&str] = &[$(stringify!($group)),*];
        $(#[test] fn $group() { every(stringify!($group)); })*
    };
}

groups! { basics, cache, checks, clusterset, failures, geo, hierarchy, members, outside, protection, transports, zones }

/// Published attacks: a scenario and a test of its name each, in `cases/attacks/`.
macro_rules! attacks {
    ($($attack:ident),* $(,)?) => {
        const ATTACKS: &[&str] = &[$(stringify!($attack)),*];
        mod attacks {
            $(#[test] fn $attack() { super::attack(stringify!($attack)); })*
        }
    };
}

attacks! { budget, camp, fragments, ghost_domain, keytrap, maginotdns, nxns, tudoor }

fn attack(name: &str) {
    let failures = one("attacks", &home().join("attacks").join(format!("{}.case", name.replace('_', "-"))));
    assert!(failures.is_empty(), "\n\n{}\n", failures.join("\n\n"));
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Plays every scenario of a group; all that fail are told.
fn every(group: &str) {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(home().join(group)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "case"));
    files.sort();
    assert!(!files.is_empty(), "{group} has no scenario");
    if let Ok(only) = std::env::var("CASE") {
        files.retain(|file| file.file_stem().is_some_and(|stem| *stem == *only));
    }
    let failures: Vec<String> = files.iter().flat_map(|file| one(group, file)).collect();
    assert!(failures.is_empty(), "\n\n{}\n", failures.join("\n\n"));
}

fn one(group: &str, file: &Path) -> Vec<String> {
    let shown = format!("dns/tests/cases/{group}/{}", file.file_name().unwrap().to_string_lossy());
    let steps = match script::read(&std::fs::read_to_string(file).unwrap()) {
        Ok(steps) => steps,
        Err((line, why)) => return vec![format!("{shown}:{line}: {why}")],
    };
    // One thread and a clock that stands: nothing happens but what the script says.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let failures = runtime.block_on(play::play(steps));
    failures.into_iter().map(|(line, why)| format!("{shown}:{line}: {why}")).collect()
}

#[test]
fn every_folder_is_a_group_and_every_transport_is_asked_over() {
    let folders = std::fs::read_dir(home()).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_dir());
    for folder in folders.map(|e| e.file_name().to_string_lossy().into_owned()) {
        let known = GROUPS.contains(&&*folder) || folder == "attacks";
        assert!(known, "tests/cases/{folder} has no row in `groups!`");
    }
    for file in std::fs::read_dir(home().join("attacks")).unwrap().map(|e| e.unwrap().path()) {
        let name = file.file_stem().unwrap().to_string_lossy().replace('-', "_");
        assert!(ATTACKS.contains(&&*name), "tests/cases/attacks: {name} has no row in `attacks!`");
    }
    for transport in atoll_dns::transport::TRANSPORTS {
        let known = stage::ways::WAYS.iter().any(|way| way.transport == transport.name);
        assert!(known, "{}: tests/stage/ways.rs has no way to ask over it", transport.name);
    }
}
