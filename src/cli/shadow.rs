//! `atoll gateway shadow`: a recorded log through the old ingress and through Atoll, and where their answers differ.

use std::path::PathBuf;
use std::sync::Arc;

use atoll_gateway::shadow::{Report, parse, shadow};
use atoll_reach::{Connect, System, host_and_port};

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{columns, note};

/// A log is at most so long.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// Replay a log through the old ingress and Atoll and compare what they answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Shadow {
    /// The log: JSON objects (method, host, uri, headers), one a line, or nginx's access log
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Where the old ingress is, host:port
    #[arg(long, value_name = "ADDRESS")]
    old: String,
    /// Where Atoll's gateway is, host:port
    #[arg(long, value_name = "ADDRESS")]
    new: String,
    /// The host of lines that name none
    #[arg(long, value_name = "H")]
    host: Option<String>,
    /// Send requests that may change something, too, not only GET and HEAD
    #[arg(long)]
    unsafe_methods: bool,
}

impl Shadow {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let shown = self.log.display();
        let failed = |e: std::io::Error| Failure::failed(format!("{shown}: {e}"));
        if std::fs::metadata(&self.log).map_err(failed)?.len() > LOG_BYTES_MAX {
            return Err(Failure::failed(format!("{shown}: longer than {} MiB: take it apart", LOG_BYTES_MAX >> 20)));
        }
        let log = std::fs::read_to_string(&self.log).map_err(failed)?;
        let records = parse(&log, self.host.as_deref()).map_err(|why| Failure::failed(format!("{shown}: {why}")))?;
        let side = |flag: &str, said: &str| {
            let found = host_and_port(said).map(|(host, port)| (host.to_owned(), port));
            found.ok_or_else(|| Failure::usage(format!("--{flag} `{said}`: host:port")))
        };
        let (old, new) = (side("old", &self.old)?, side("new", &self.new)?);
        let connect: Arc<dyn Connect> = Arc::new(System::default());
        let report = shadow(&connect, records, &old, &new, self.unsafe_methods).await;
        globals.output.show(&report, || text(&report))?;
        note(format!(
            "{} requests replayed, {} left out, {} differences",
            report.replayed,
            report.left_out,
            report.differences.len()
        ));
        if report.differences.is_empty() { Ok(()) } else { Err(Failure::negative()) }
    }
}

fn text(report: &Report) -> String {
    if report.differences.is_empty() {
        return String::new();
    }
    let rows = report.differences.iter().map(|d| vec![d.request.clone(), d.what.clone(), d.old.clone(), d.new.clone()]);
    columns(&["Request", "Differs in", "Old", "Atoll"], rows)
}
