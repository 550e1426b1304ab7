//! A part that runs: ended and awaited by its owner.

use anyhow::anyhow;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running part.
pub(crate) struct Part {
    name: &'static str,
    end: CancellationToken,
    /// Nothing once its end was told.
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Part {
    /// Starts one; it gets its own token, a child of `shutdown`.
    pub(crate) fn start<F>(
        name: &'static str,
        shutdown: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let end = shutdown.child_token();
        Self { name, task: Some(tokio::spawn(run(end.clone()))), end }
    }

    /// Waits until it ends by itself or is told to. Cancel safe. An end that was told already is no error any more.
    ///
    /// # Errors
    /// Why it ended.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await;
        self.task = None;
        match ended {
            Ok(ended) => ended.map_err(|e| e.context(self.name)),
            Err(broken) => Err(anyhow!("{}: {broken}", self.name)),
        }
    }

    /// Tells it to end, and waits for that.
    ///
    /// # Errors
    /// Why it ended, if not because of this.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.end.cancel();
        self.ended().await
    }
}
