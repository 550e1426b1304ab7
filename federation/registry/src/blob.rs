//! Brings one blob to the destination: opens an upload, streams the feed into it, resumes what broke, gives up cleanly.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Begun, ByteStream, Push, Upload},
    closure::Blob,
    copy::Limits,
    error::{Error, Why},
    feed::Feed,
    progress::Tracker,
};

/// How long a registry may take to forget an upload that we gave up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The two ends and the bounds.
pub(crate) struct Courier {
    pub(crate) from: Arc<dyn Push>,
    pub(crate) to: Arc<dyn Push>,
    pub(crate) limits: Limits,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) stop: CancellationToken,
}

/// An upload under way, and what it stands at.
struct Delivery<'a> {
    courier: &'a Courier,
    blob: &'a Blob,
    mount: Option<&'a str>,
    feed: Arc<Mutex<Feed>>,
    upload: Option<Upload>,
    /// The furthest that the destination ever kept.
    kept: u64,
}

impl Courier {
    /// Brings `blob`, from another repository `mount` of the destination if that works.
    pub(crate) async fn bring(&self, blob: &Blob, mount: Option<&str>) -> Result<(), Error> {
        let feed = Feed::new(self.from.clone(), blob.clone(), self.limits.retry, self.tracker.clone());
        let feed = Arc::new(Mutex::new(feed));
        let mut delivery = Delivery { courier: self, blob, mount, feed, upload: None, kept: 0 };
        let done = self.stop.run_until_cancelled(delivery.run()).await;
        if let (Some(upload), false) = (&delivery.upload, matches!(done, Some(Ok(())))) {
            // else the registry keeps the bytes for a week; whether it forgets them is not our success or failure
            let _ = tokio::time::timeout(ABORT_TIMEOUT, self.to.abort(upload)).await;
        }
        let cancelled = || Error::new(self.to.endpoint().at(&blob.to_repository, blob.digest.as_str()), Why::Cancelled);
        done.unwrap_or_else(|| Err(cancelled()))?;
        self.tracker.update(|p| p.objects += 1);
        Ok(())
    }
}

impl Delivery<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut tried = 0;
        loop {
            let before = self.kept;
            let error = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // a source that failed for good is the cause, not the destination whose upload we broke off
            if let Some(cause) = self.feed.lock().await.failed.take() {
                return Err(cause);
            }
            if let Why::Status { status: 400 | 404 | 416, .. } | Why::NotFound = error.why
                && self.upload.take().is_some()
                && tried < self.courier.limits.retry.attempts_max
            {
                // the registry forgot the upload or stands elsewhere in it: begin anew
                tried += 1;
                continue;
            }
            tried = if self.kept > before { 1 } else { tried + 1 };
            let pause = self.courier.limits.retry.pause_after(tried, self.blob.digest.as_str(), &error);
            let Some(pause) = pause else { return Err(error) };
            tracing::debug!(%error, tried, "resuming an upload");
            self.courier.tracker.retried();
            tokio::time::sleep(pause).await;
        }
    }

    /// One go, from where the destination stands.
    async fn attempt(&mut self) -> Result<(), Error> {
        let (to, size) = (&self.courier.to, self.blob.size);
        let mut offset = 0;
        if let Some(mut upload) = self.upload.take() {
            match to.kept(&mut upload).await {
                Ok(Some(kept)) if kept <= size => {
                    (offset, self.upload) = (kept, Some(upload));
                    self.kept = self.kept.max(kept);
                }
                Ok(_) => {}
                Err(error) => {
                    self.upload = Some(upload);
                    return Err(error);
                }
            }
        }
        if self.upload.is_none() {
            match to.begin(&self.blob.to_repository, &self.blob.digest, self.mount).await? {
                Begun::Mounted => {
                    self.courier.tracker.update(|p| p.mounted += 1);
                    return Ok(());
                }
                Begun::Upload(upload) => self.upload = Some(upload),
            }
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        self.feed.lock().await.rewind(offset);
        if size == 0 {
            self.feed.lock().await.check()?;
        }
        loop {
            let left = size - offset;
            let len = left.min(self.courier.limits.chunk_bytes);
            let body = pieces(self.feed.clone().lock_owned().await, len);
            to.send(upload, offset, len, len == left, body).await?;
            offset += len;
            if len == left {
                self.upload = None;
                return Ok(());
            }
            self.kept = self.kept.max(offset);
        }
    }
}

/// The next `len` bytes of a feed as a body. Gives the feed back when dropped.
fn pieces(feed: OwnedMutexGuard<Feed>, len: u64) -> ByteStream {
    Box::pin(stream::unfold((Some(feed), len), async |(feed, left)| {
        let mut feed = feed?;
        if left == 0 {
            return None;
        }
        match feed.next(left).await {
            Ok(Some(piece)) => {
                let left = left - piece.len() as u64;
                Some((Ok::<Bytes, Error>(piece), (Some(feed), left)))
            }
            Ok(None) => None,
            Err(cause) => {
                let at = (*cause.at).clone();
                feed.failed = Some(cause);
                Some((Err(Error::new(at, Why::Broken("the source failed".into()))), (None, 0)))
            }
        }
    }))
}
