//! What `benches/topology/run` measures with, one program for all of it.
//!
//! ```text
//!   measure DIR MEMBERS SERVICES RATE SECONDS ROUNDS   starts the two below, joins the members, makes changes, prints what it took
//!   hub DIR                                            a hub on an embedded API server; does what it is told on stdin
//!   dns DIR HUB AT                                     a DNS server that follows it
//! ```
//!
//! In: words. Out: lines for people. Everything listens on loopback.

mod agent;
mod child;
mod dns;
mod federation;
mod hub;
mod measure;
mod names;
mod query;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// Whatever goes wrong ends the measurement.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "atoll-bench-topology {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[String]) -> Result<()> {
    let word = |at: usize| words.get(at).map(String::as_str).ok_or("a word is missing: see the first lines of main.rs");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = std::path::Path::new(word(1)?);
    match word(0)? {
        "hub" => runtime.block_on(hub::run(dir)),
        "dns" => runtime.block_on(dns::run(dir, word(2)?, word(3)?.parse()?)),
        "measure" => {
            let plan = measure::Plan {
                members: word(2)?.parse()?,
                services: word(3)?.parse()?,
                rate: word(4)?.parse()?,
                seconds: word(5)?.parse()?,
                rounds: word(6)?.parse()?,
            };
            runtime.block_on(measure::measure(dir, plan))
        }
        other => Err(format!("`{other}` is no command").into()),
    }
}

/// A line for people.
pub(crate) fn say(line: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
