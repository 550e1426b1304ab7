//! The one binary: commands in, exit code out. Everything that belongs to the process (configuration, sockets, signals, logging) is
//! in this folder and nowhere else; the parts are wired together here.
//!
//! ```text
//!   cli ─► run: hub, dns, gateway, agent (one part each)
//!      └─► up: all of them and the demo members in one process
//! ```

mod admin;
mod bind;
mod cli;
mod config;
mod crds;
mod descriptors;
mod embedded;
mod error;
mod files;
mod handover;
mod run;
mod signals;
mod site;
mod taps;
mod telemetry;
mod up;

use std::process::ExitCode;

/// See decision 0008.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    descriptors::raise();
    // Before anything else: whoever makes a TLS configuration takes this one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        unreachable!("nobody has installed a provider before main");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return error::report(&anyhow::Error::new(why).context("start the runtime")),
    };
    match runtime.block_on(cli::main()) {
        Ok(code) => code,
        Err(why) => error::report(&why),
    }
}
