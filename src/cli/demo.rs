//! `atoll demo break|heal WHAT`: hurts the running `atoll up`, and mends it.

use serde_json::json;

use super::failure::{Failure, Outcome};
use super::{Globals, connect};
use crate::up;

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
        let home = connect::home().ok_or_else(|| Failure::failed("neither ATOLL_HOME nor HOME is set"))?;
        let done = up::control(&home, action, &what).await?;
        globals.output.show(&json!({"what": what, "done": done}), || done.clone())
    }
}
