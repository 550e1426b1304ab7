//! `atoll completions SHELL`: a script that completes commands and flags.

use super::failure::Outcome;

/// Print a completion script.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// For example: source <(atoll completions bash)
    shell: clap_complete::Shell,
}

impl Completions {
    /// Runs it. Needs no API server.
    pub(crate) fn run(self) -> Outcome {
        let mut command = super::command();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "atoll", &mut script);
        super::output::print(String::from_utf8_lossy(&script).trim_end());
        Ok(())
    }
}
