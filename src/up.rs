//! `atoll up`: a whole federation in one process.

use std::path::{Path, PathBuf};

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Demo members by name; empty: none; absent: the five.
    pub(crate) members: Option<Vec<String>>,
    /// Keeps the state.
    pub(crate) data_dir: Option<PathBuf>,
    /// Says where to listen and what to advertise.
    pub(crate) config: Option<PathBuf>,
    /// One line of JSON when ready.
    pub(crate) json: bool,
}

/// What `atoll demo` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cuts a member off, or stops a part.
    Break,
    /// Mends it.
    Heal,
}

/// Runs it until a signal.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    anyhow::bail!("{options:?}")
}

/// Asks the running `atoll up` below `home` (or of exactly this run directory) to break or heal a member (by name), `hub`, `dns` or
/// `gateway`. Returns what was done, for people.
pub(crate) async fn control(home: &Path, action: Action, what: &str) -> anyhow::Result<String> {
    anyhow::bail!("{home:?} {action:?} {what}")
}
