//! Carries out a copy: list, plan, move, verify, tag; each stage bounded, and cancellable between and within.
//!
//! Input: a [`Job`]. Output: a [`Report`], or the first error, with the destination left without a tag to anything unfinished.
//! Bytes that were moved stay and are found by the next run. Never: a tag for something that was not read back.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use atoll_reach::Connect;

use crate::{
    backend::{self, Push},
    blob::Courier,
    closure::{self, Closure, Node},
    endpoint::{Endpoint, Root},
    error::{Error, Why},
    name::{Digest, ImageRef},
    plan::{Plan, Present, plan},
    progress::{Phase, Progress, Tracker},
    retry::Retry,
};

/// One end of a copy: a registry and the way to it.
#[derive(Clone)]
pub struct End {
    /// The registry.
    pub endpoint: Endpoint,
    /// What dials it.
    pub connect: Arc<dyn Connect>,
}

/// Bounds of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blobs moved at once.
    pub blobs_max: usize,
    /// Small requests under way at once.
    pub requests_max: usize,
    /// A larger blob goes in requests of this size, so that registries which keep whole chunks only can resume.
    pub chunk_bytes: u64,
    /// How failures are tried again.
    pub retry: Retry,
}

impl Default for Limits {
    fn default() -> Self {
        Self { blobs_max: 8, requests_max: 16, chunk_bytes: 64 << 20, retry: Retry::default() }
    }
}

/// What is to be copied.
#[derive(Clone)]
pub struct Job {
    /// Where from.
    pub source: End,
    /// Where to.
    pub destination: End,
    /// Which images, frozen.
    pub roots: Vec<Root>,
    /// The closure that was approved; anything else is refused.
    pub approved: Option<Digest>,
    /// Whether signatures and the like, found as referrers, belong to the closure.
    pub referrers: bool,
    /// Bounds.
    pub limits: Limits,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The closure that is now at the destination.
    pub closure: Digest,
    /// The last progress: bytes, objects, skipped, mounted, retries.
    pub progress: Progress,
}

/// What the images mean at `end` now, by digest.
///
/// # Errors
/// The registry doesn't answer, refuses us, or hasn't got one of them.
pub async fn resolve(end: &End, images: &[ImageRef]) -> Result<Vec<Root>, Error> {
    let from = backend::open(&end.endpoint, end.connect.clone())?;
    closure::resolve(&*from, images, &Retry::default()).await
}

/// Everything that `roots` reach at `end`, without reading a blob.
///
/// # Errors
/// The registry doesn't answer, refuses us, or a manifest is missing, corrupt or of a kind that we don't know.
pub async fn closure(end: &End, roots: &[Root]) -> Result<Closure, Error> {
    let from = backend::open(&end.endpoint, end.connect.clone())?;
    closure::walk(from, roots, false, &Retry::default()).await
}

/// What `end` lacks of `closure`; changes nothing there.
///
/// # Errors
/// The registry doesn't answer or refuses us.
pub async fn missing(end: &End, closure: &Closure) -> Result<Plan, Error> {
    let to = backend::open(&end.endpoint, end.connect.clone())?;
    let limits = Limits::default();
    Ok(plan(closure, &present(&*to, closure, &limits).await?))
}

/// Does `job`. Not cancel safe by dropping as far as the destination's open uploads go: use `cancel`, which closes them.
///
/// # Errors
/// [`Why::TagMoved`] and [`Why::ClosureChanged`] if the source is not what was approved, [`Why::Cancelled`], or what went wrong
/// and stayed wrong over all tries. The destination has no new tag then.
pub async fn copy(job: Job, progress: watch::Sender<Progress>, cancel: CancellationToken) -> Result<Report, Error> {
    let from = backend::open(&job.source.endpoint, job.source.connect.clone())?;
    let to = backend::open(&job.destination.endpoint, job.destination.connect.clone())?;
    let stop = cancel.child_token();
    let courier = Courier { from, to, limits: job.limits, tracker: Arc::new(Tracker::new(progress)), stop };
    let cancelled = || Error::new(job.destination.endpoint.at("", ""), Why::Cancelled);

    // list and plan
    let listed = cancel.run_until_cancelled(list(&courier, &job)).await.unwrap_or_else(|| Err(cancelled()));
    let (closure, plan) = listed?;

    // move; a cancelled upload closes itself, so this is not dropped from outside
    courier.tracker.phase(Phase::Copying);
    bring_blobs(&courier, &plan).await?;

    let rest = async {
        put_manifests(&courier, &plan).await?;
        courier.tracker.phase(Phase::Verifying);
        verify(&courier, &closure).await?;
        courier.tracker.phase(Phase::Tagging);
        tag(&courier, &closure, &plan).await
    };
    cancel.run_until_cancelled(rest).await.unwrap_or_else(|| Err(cancelled()))?;
    courier.tracker.phase(Phase::Done);
    Ok(Report { closure: closure.digest, progress: courier.tracker.now() })
}

async fn list(courier: &Courier, job: &Job) -> Result<(Closure, Plan), Error> {
    let retry = &job.limits.retry;
    // a tag that moved already would only be found after all bytes went over
    unmoved(courier, &job.roots).await?;
    let closure = closure::walk(courier.from.clone(), &job.roots, job.referrers, retry).await?;
    if let Some(approved) = job.approved.as_ref().filter(|approved| **approved != closure.digest) {
        let why = Why::ClosureChanged { approved: approved.clone(), found: closure.digest };
        return Err(Error::new(job.source.endpoint.at("", ""), why));
    }
    courier.tracker.phase(Phase::Planning);
    let plan = plan(&closure, &present(&*courier.to, &closure, &job.limits).await?);
    let manifests: usize = plan.manifests.iter().map(Vec::len).sum();
    courier.tracker.update(|p| {
        (p.bytes_total, p.skipped) = (plan.bytes, plan.skipped);
        p.objects_total = (plan.copies.len() + plan.mounts.len() + manifests) as u64;
    });
    Ok((closure, plan))
}

/// A stream of work. Made at once: a lazy map over borrowed items is not `Send` in the compiler's eyes (rust-lang/rust#102211).
fn at_once<F: Future>(work: impl Iterator<Item = F>) -> stream::Iter<std::vec::IntoIter<F>> {
    stream::iter(work.collect::<Vec<_>>())
}

/// What the destination has of a closure.
async fn present(to: &dyn Push, closure: &Closure, limits: &Limits) -> Result<Present, Error> {
    let retry = &limits.retry;
    let blobs = at_once(closure.blobs.iter().map(|b| async move {
        let size = retry.run(b.digest.as_str(), || to.stat(&b.to_repository, &b.digest)).await?;
        // of another size is not there: an upload that the registry cut off
        Ok::<_, Error>((size == Some(b.size)).then(|| (b.to_repository.clone(), b.digest.clone())))
    }));
    let blobs: Vec<_> = blobs.buffered(limits.requests_max).try_collect().await?;
    let manifests = at_once(closure.manifests.iter().map(|n| async move {
        let digest = &n.manifest.digest;
        let found = retry.run(digest.as_str(), || to.resolve(&n.to_repository, digest.as_str())).await?;
        Ok::<_, Error>(found.map(|_| (n.to_repository.clone(), digest.clone())))
    }));
    let manifests: Vec<_> = manifests.buffered(limits.requests_max).try_collect().await?;
    let mut present = Present {
        blobs: blobs.into_iter().flatten().collect(),
        manifests: manifests.into_iter().flatten().collect(),
        ..Present::default()
    };
    for root in &closure.roots {
        let Some(tag) = &root.tag else { continue };
        if let Some(found) = retry.run(tag, || to.resolve(&root.to_repository, tag)).await? {
            present.tags.insert((root.to_repository.clone(), tag.clone()), found.digest);
        }
    }
    Ok(present)
}

async fn bring_blobs(courier: &Courier, plan: &Plan) -> Result<(), Error> {
    let copies: Vec<_> = plan.copies.iter().map(|b| courier.bring(b, None)).collect();
    all(courier, copies).await?;
    let mounts: Vec<_> = plan.mounts.iter().map(|m| courier.bring(&m.blob, Some(&m.from))).collect();
    all(courier, mounts).await
}

/// Waits for all; the first failure stops the others, which close their uploads.
async fn all<F: Future<Output = Result<(), Error>>>(courier: &Courier, work: Vec<F>) -> Result<(), Error> {
    let mut running = stream::iter(work).buffer_unordered(courier.limits.blobs_max);
    let mut first = Ok(());
    while let Some(done) = running.next().await {
        if first.is_ok() && done.is_err() {
            courier.stop.cancel();
            first = done;
        }
    }
    first
}

/// Children first: one height after another, each height at once.
async fn put_manifests(courier: &Courier, plan: &Plan) -> Result<(), Error> {
    for height in &plan.manifests {
        let puts = at_once(height.iter().map(|n| put_manifest(courier, n)));
        puts.buffer_unordered(courier.limits.requests_max).try_collect::<()>().await?;
    }
    Ok(())
}

async fn put_manifest(courier: &Courier, node: &Node) -> Result<(), Error> {
    let digest = node.manifest.digest.as_str();
    let put = || courier.to.put_manifest(&node.to_repository, digest, &node.manifest);
    courier.limits.retry.run(digest, put).await?;
    courier.tracker.moved(node.manifest.body.len() as u64);
    courier.tracker.update(|p| p.objects += 1);
    Ok(())
}

/// Every manifest is read back and hashed, every blob asked for: a registry's 201 is a promise, not a proof.
async fn verify(courier: &Courier, closure: &Closure) -> Result<(), Error> {
    let (to, limits) = (&courier.to, &courier.limits);
    let blobs = at_once(closure.blobs.iter().map(|b| async move {
        let digest = b.digest.as_str();
        match limits.retry.run(digest, || to.stat(&b.to_repository, &b.digest)).await? {
            Some(size) if size == b.size => Ok(()),
            Some(size) => {
                let why = Why::Corrupt(format!("{} bytes were sent and it has {size}", b.size));
                Err(Error::new(to.endpoint().at(&b.to_repository, digest), why))
            }
            None => Err(Error::new(to.endpoint().at(&b.to_repository, digest), Why::NotFound)),
        }
    }));
    blobs.buffer_unordered(limits.requests_max).try_collect::<()>().await?;
    let manifests = at_once(closure.manifests.iter().map(|n| async move {
        let digest = n.manifest.digest.as_str();
        limits.retry.run(digest, || to.manifest(&n.to_repository, digest)).await.map(drop)
    }));
    manifests.buffer_unordered(limits.requests_max).try_collect().await
}

/// Refuses roots whose tag means something else at the source by now.
async fn unmoved(courier: &Courier, roots: &[Root]) -> Result<(), Error> {
    for root in roots {
        let Some(tag) = &root.tag else { continue };
        let at = courier.from.endpoint().at(&root.repository, tag);
        match courier.limits.retry.run(tag, || courier.from.resolve(&root.repository, tag)).await? {
            Some(found) if found.digest == root.digest => {}
            Some(found) => {
                let why = Why::TagMoved { approved: root.digest.clone(), found: found.digest };
                return Err(Error::new(at, why));
            }
            None => return Err(Error::new(at, Why::NotFound)),
        }
    }
    Ok(())
}

async fn tag(courier: &Courier, closure: &Closure, plan: &Plan) -> Result<(), Error> {
    unmoved(courier, &plan.tags).await?;
    for root in &plan.tags {
        let node = closure
            .manifests
            .iter()
            .find(|n| n.to_repository == root.to_repository && n.manifest.digest == root.digest);
        let (Some(tag), Some(node)) = (&root.tag, node) else { continue };
        let put = || courier.to.put_manifest(&root.to_repository, tag, &node.manifest);
        courier.limits.retry.run(tag, put).await?;
        let found = courier.limits.retry.run(tag, || courier.to.resolve(&root.to_repository, tag)).await?;
        if found.as_ref().map(|d| &d.digest) != Some(&root.digest) {
            let why = Why::Corrupt("the tag was written and means something else".to_owned());
            return Err(Error::new(courier.to.endpoint().at(&root.to_repository, tag), why));
        }
    }
    Ok(())
}
