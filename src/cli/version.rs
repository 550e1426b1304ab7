//! `atoll version`: this program's, and that of the API server where one answers.

use std::time::Duration;

use serde_json::json;

use super::Globals;
use super::failure::Outcome;

const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Show versions.
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// This program's only; asks nobody
    #[arg(long)]
    client: bool,
}

impl Version {
    /// Runs it. An API server that does not answer is no failure.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let own = env!("CARGO_PKG_VERSION");
        let server = match self.client {
            true => None,
            false => tokio::time::timeout(ANSWER_MAX, server(globals)).await.ok().flatten(),
        };
        globals.output.show(&json!({"client": own, "server": server}), || match &server {
            Some(server) => format!("atoll {own}\nAPI server {server}"),
            None => format!("atoll {own}"),
        })
    }
}

async fn server(globals: &Globals) -> Option<String> {
    let at = globals.hub().await.ok()?;
    Some(at.client.apiserver_version().await.ok()?.git_version)
}
