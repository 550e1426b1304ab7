//! What `benches/gateway/run` measures with, one program for all of it.
//!
//! ```text
//!   certificate FOLDER                 a certificate for localhost and its key
//!   hub AT                             an API server in memory, without TLS
//!   objects HUB ROUTES ORIGIN GRPC FOLDER
//!                                      a Gateway, ROUTES routes of a host each, Services to ORIGIN and GRPC, the certificate
//!   serve HUB HTTP HTTPS               Atoll's gateway
//!   bare AT ORIGIN                     hyper on both sides and a pool: no routes, no limits
//!   origin AT                          answers of HTTP/2 with gRPC's trailers
//!   load WAY AT HOST PATH CONNECTIONS SECONDS [RATE] [FOLDER]
//!                                      WAY: http, tls, new (a TLS connection for each), h2, grpc; RATE a second, else as many as are answered
//!   idle WAY AT HOST COUNT PID FOLDER  connections that ask once and stay; WAY: http, tls, h2
//!   changes HUB AT COUNT RATE          changes of routes, endpoints and certificates until they are seen in answers
//!   alone FOLDER                       Atoll's gateway before one endpoint, on ports that it says, its certificate in FOLDER
//!   failure RATE FOLDER                Atoll's gateway before two clusters in namespaces, whose pods are killed and cut off
//!   handover PROGRAM RATE COUNT FOLDER Atoll's program as a gateway that gives its place to the next process COUNT times
//!   pod AT FOLDER                      one of these pods; which POSTs reached it is in FOLDER
//!   smuggling COUNT SEED FOLDER        COUNT mutated requests through Atoll, nginx and HAProxy: what their endpoints read otherwise, into FOLDER
//! ```
//!
//! In: words. Out: lines of `name value` for the script. Everything listens on loopback.

mod bare;
mod changes;
mod failure;
mod handover;
mod hub;
mod load;
mod multiplexed;
mod objects;
mod secure;
mod serve;
mod smuggling;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever goes wrong ends the measurement.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Whoever makes settings of TLS takes this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The generator and the bare proxy are of one thread; the gateway runs as it does in the product.
    let mut builder = match words.first().map(String::as_str) {
        Some("serve" | "hub" | "alone" | "smuggling" | "failure" | "handover") => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let done = builder.enable_all().build().map_err(Into::into).and_then(|runtime| runtime.block_on(command(&words)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "atoll-bench-gateway {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

async fn command(words: &[String]) -> Result<()> {
    let word = |at: usize| words.get(at).map(String::as_str).ok_or("a word is missing: see the first lines of main.rs");
    match word(0)? {
        "certificate" => secure::write(Path::new(word(1)?)),
        "hub" => hub::serve(word(1)?.parse()?).await,
        "objects" => {
            let (origin, grpc) = (word(3)?.parse()?, word(4)?.parse()?);
            objects::put(word(1)?, word(2)?.parse()?, origin, grpc, Path::new(word(5)?)).await
        }
        "serve" => serve::serve(word(1)?, word(2)?.parse()?, word(3)?.parse()?).await,
        "bare" => bare::serve(word(1)?.parse()?, word(2)?.parse()?).await,
        "origin" => multiplexed::origin(word(1)?.parse()?).await,
        "load" => {
            let rate = word(7).unwrap_or("0").parse()?;
            let folder = word(8).unwrap_or(".");
            let load = load::Load {
                way: word(1)?.parse()?,
                at: word(2)?.parse()?,
                host: word(3)?.to_owned(),
                path: word(4)?.to_owned(),
                connections: word(5)?.parse()?,
                seconds: word(6)?.parse()?,
                rate,
                folder: folder.into(),
            };
            load.run().await
        }
        "idle" => {
            let count = word(4)?.parse()?;
            load::idle(word(1)?.parse()?, word(2)?.parse()?, word(3)?, count, word(5)?, Path::new(word(6)?)).await
        }
        "changes" => changes::run(word(1)?, word(2)?.parse()?, word(3)?.parse()?, word(4)?.parse()?).await,
        "alone" => smuggling::alone(Path::new(word(1)?)).await,
        "failure" => failure::run(word(1)?.parse()?, Path::new(word(2)?)).await,
        "handover" => {
            let (program, folder) = (Path::new(word(1)?), Path::new(word(4)?));
            handover::run(program, word(2)?.parse()?, word(3)?.parse()?, folder).await
        }
        "pod" => failure::pod::serve(word(1)?.parse()?, Path::new(word(2)?)).await,
        "smuggling" => smuggling::run(word(1)?.parse()?, word(2)?.parse()?, Path::new(word(3)?)).await,
        other => Err(format!("`{other}` is no command").into()),
    }
}

/// Says a value to the script.
pub(crate) fn say(name: &str, value: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} {value}")?;
    Ok(out.flush()?)
}
