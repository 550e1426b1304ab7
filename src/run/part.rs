//! A part that runs: ended and awaited by its owner.

use anyhow::{anyhow, bail};
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
    /// Starts one; it gets its own token, a child of `parent`.
    pub(crate) fn start<F>(
        name: &'static str,
        parent: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let end = parent.child_token();
        Self { name, task: Some(tokio::spawn(run(end.clone()))), end }
    }

    /// Starts one without which the process makes no sense: should it end by itself, `all` is told to end too.
    pub(crate) fn vital<F>(
        name: &'static str,
        parent: &CancellationToken,
        all: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let all = all.clone();
        Self::start(name, parent, |end| {
            // A task of its own, so that its panic is seen here.
            let running = tokio::spawn(run(end.clone()));
            async move {
                let ended = running.await.map_err(anyhow::Error::from).flatten();
                if !end.is_cancelled() {
                    all.cancel();
                    return ended.and_then(|()| bail!("ended by itself"));
                }
                ended
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_part_that_ends_by_itself_ends_all() {
        for (case, panics) in [("an error", false), ("a panic", true)] {
            let all = CancellationToken::new();
            let part = Part::vital("DNS server", &all, &all, |_| async move {
                assert!(!panics, "a bug");
                bail!("no socket")
            });
            all.cancelled().await;
            let error = format!("{:#}", part.end().await.unwrap_err());
            assert!(error.contains("DNS server"), "{case}: {error}");
        }
    }

    #[tokio::test]
    async fn a_part_that_is_told_to_end_ends_nothing_else() {
        let all = CancellationToken::new();
        let part = Part::vital("hub", &all, &all, |end| async move {
            end.cancelled().await;
            Ok(())
        });
        part.end().await.unwrap();
        assert!(!all.is_cancelled());
    }
}
