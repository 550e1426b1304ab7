//! `atoll demo break|heal WHAT`: hurts the running `atoll up`, and mends it.

use serde_json::json;

use super::failure::Outcome;
use super::{Globals, run_files};
use crate::{config, up};

/// Hurt the running `atoll up`, and mend it.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Cut a member off, or stop hub, dns or gateway
    Break {
        /// A member's name, hub, dns or gateway
        what: String,
    },
    /// Undo it
    Heal {
        /// A member's name, hub, dns or gateway
        what: String,
    },
}

impl Demo {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let (action, what) = match self.verb {
            Verb::Break { what } => (up::Action::Break, what),
            Verb::Heal { what } => (up::Action::Heal, what),
        };
        // Several may run: the kubeconfig says which one is meant.
        let at = run_files::directory(globals).map_or_else(config::home, Ok)?;
        let done = up::control(&at, action, &what).await?;
        globals.output.show(&json!({"what": what, "done": done}), || done.clone())
    }
}
