//! What `benches/dns/run` measures with, one program for all of it.
//!
//! ```text
//!   certificate FOLDER                a certificate for localhost and its key
//!   serve AT NAMES MEMBERS SERVICES [FOLDER]
//!                                     Atoll's DNS server over a made-up federation, one thread; with a certificate's folder also DoT, DoH
//!                                     and DoQ, 1000, 2000 and 3000 ports on
//!   member AT                         the DNS of every member: an address for each name
//!   echo AT BYTES                     receives and sends by the batch and does nothing else: what no server can be below
//!   load AT KIND SECONDS RATE [COUNT] queries at a rate (0: as many as are answered), percentiles of the answers' times; COUNT at most
//!   flood AT SECONDS COUNT KIND       calm queries, quiet and beside COUNT of KIND: what others feel of a flood
//!   streams WAY AT KIND SECONDS FOLDER
//!                                     queries by HTTPS (doh) or QUIC (doq), a stream for each
//!   change MEMBERS SERVICES COUNT     changes of the topology until they are seen in answers
//!   queries KIND COUNT                a file of queries for dnsperf, to stdout
//! ```
//!
//! In: words. Out: lines of `name value` for the script. Everything listens on loopback.

mod change;
mod echo;
mod federation;
mod flood;
mod load;
mod secure;
mod serve;
mod streams;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Whatever goes wrong ends the measurement.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "atoll-bench-dns {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[String]) -> Result<()> {
    let word = |at: usize| words.get(at).map(String::as_str).ok_or("a word is missing: see the first lines of main.rs");
    match word(0)? {
        "serve" => {
            let size =
                federation::Size { names: word(2)?.parse()?, members: word(3)?.parse()?, services: word(4)?.parse()? };
            serve::serve(word(1)?.parse()?, size, word(5).ok().map(Path::new))
        }
        "certificate" => secure::write(Path::new(word(1)?)),
        "streams" => {
            streams::ask(word(1)?, word(2)?.parse()?, word(3)?.parse()?, word(4)?.parse()?, Path::new(word(5)?))
        }
        "member" => serve::member(word(1)?.parse()?),
        "echo" => echo::echo(word(1)?.parse()?, word(2)?.parse()?),
        "load" => {
            let plan = load::Plan {
                at: word(1)?.parse()?,
                kind: word(2)?.parse()?,
                seconds: word(3)?.parse()?,
                rate: word(4)?.parse()?,
                count: word(5).map_or(Ok(u64::MAX), str::parse)?,
            };
            load::load(&plan)
        }
        "flood" => {
            let (at, seconds, count) = (word(1)?.parse()?, word(2)?.parse()?, word(3)?.parse()?);
            let plan = flood::Plan { at, seconds, count, kind: word(4)?.parse()? };
            flood::flood(&plan)
        }
        "change" => change::change(word(1)?.parse()?, word(2)?.parse()?, word(3)?.parse()?),
        "queries" => {
            let kind: load::Kind = word(1)?.parse()?;
            let count: u64 = word(2)?.parse()?;
            let mut out = std::io::stdout().lock();
            (0..count).try_for_each(|n| writeln!(out, "{} {}", kind.name(n), kind.record_type().1))?;
            Ok(())
        }
        other => Err(format!("`{other}` is no command").into()),
    }
}

/// A line for the script.
pub(crate) fn say(name: &str, value: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout(), "{name} {value}")?;
    Ok(())
}
