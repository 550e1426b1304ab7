//! Signals: the first SIGINT or SIGTERM ends everything in order, a second one at once.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell shows for a process that a SIGINT ended.
const INTERRUPTED: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When the system has no signals left to give.
pub(crate) fn shutdown() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    // Lives as long as the process: the second signal may come at any time.
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        shutdown.cancel();
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        #[expect(clippy::exit, reason = "the person at the keyboard does not want to wait for an orderly end")]
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}
