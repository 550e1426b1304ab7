//! The engine as the agent knows it: the trait of `api` over [`mod@crate::copy`].
//!
//! In: jobs in the words of the language, credentials from the agent's own member. Out: reports that never fail, they say why.
//! Never: an approval; the agent has checked it before it calls.

use std::{sync::Arc, time::Duration};

use atoll_api::copy::{
    self as said, Boxed, CheckJob, CheckReport, CopyJob, CopyReport, CopyState, Credentials, Keys, RegistryEndpoint,
};
use atoll_reach::Connect;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    copy::{self, End, Job, Limits},
    endpoint::{Endpoint, Root},
    error::{At, Error, Why},
    name::{Digest, NameError},
    progress::{Phase, Progress},
};

/// Progress is told no more often.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Says what dials a registry: the member's own network, or the way to another member.
pub type Dial = Arc<dyn Fn(&RegistryEndpoint) -> Arc<dyn Connect> + Send + Sync>;

/// Runs copies for an agent.
pub struct Engine {
    dial: Dial,
    limits: Limits,
    shutdown: CancellationToken,
    running: TaskTracker,
}

impl Engine {
    /// An engine that stops when `shutdown` says so.
    pub fn new(dial: Dial, limits: Limits, shutdown: CancellationToken) -> Self {
        Self { dial, limits, shutdown, running: TaskTracker::new() }
    }

    /// Waits until every copy has ended and given its open uploads up; call it after the shutdown.
    pub async fn closed(&self) {
        self.running.close();
        self.running.wait().await;
    }

    fn end(&self, said: &RegistryEndpoint, credentials: Option<Credentials>) -> Result<End, Error> {
        let mut endpoint = Endpoint::new(&said.url)?;
        (endpoint.insecure, endpoint.backend) = (said.insecure, said.backend.clone());
        Ok(End { endpoint: endpoint.with_credentials(credentials), connect: (self.dial)(said) })
    }

    async fn try_check(&self, job: &CheckJob, keys: Keys) -> Result<CheckReport, Error> {
        let (from, to) = (self.end(&job.from, keys.from)?, self.end(&job.to, keys.to)?);
        let image = |text: &String| text.parse().map_err(|e: NameError| bad(&from.endpoint, &e));
        let images = job.images.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        let roots = copy::resolve(&from, &images).await?;
        let closure = copy::closure(&from, &roots).await?;
        let plan = copy::missing(&to, &closure).await?;
        Ok(CheckReport {
            roots: roots.into_iter().map(say_root).collect(),
            closure: closure.digest.to_string(),
            objects: closure.objects,
            bytes: closure.bytes,
            bytes_missing: plan.bytes,
            error: None,
        })
    }

    fn job(&self, job: &CopyJob, keys: Keys) -> Result<Job, Error> {
        let (source, destination) = (self.end(&job.from, keys.from)?, self.end(&job.to, keys.to)?);
        let name = |e: NameError| bad(&source.endpoint, &e);
        let roots = job.roots.iter().map(|r| root(r).map_err(name)).collect::<Result<_, _>>()?;
        let approved = Some(job.closure.parse::<Digest>().map_err(name)?);
        Ok(Job { source, destination, roots, approved, referrers: false, limits: self.limits })
    }

    async fn try_copy(&self, job: Job, tell: impl Fn(Progress)) -> Result<copy::Report, Error> {
        let (sender, mut progress) = watch::channel(Progress::default());
        let cancel = self.shutdown.child_token();
        // when the agent drops us, this cancels, and the task still closes its uploads at the registry
        let _guard = cancel.clone().drop_guard();
        let at = job.destination.endpoint.at("", "");
        let mut copying = self.running.spawn(copy::copy(job, sender, cancel));
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                done = &mut copying => return done.unwrap_or_else(|e| Err(Error::new(at, Why::Broken(Box::new(e))))),
                _ = tick.tick() => if progress.has_changed().unwrap_or(false) {
                    tell(*progress.borrow_and_update());
                }
            }
        }
    }
}

impl said::Copy for Engine {
    fn check<'a>(&'a self, job: &'a CheckJob, keys: Keys) -> Boxed<'a, CheckReport> {
        Box::pin(async move {
            let failed = |e: Error| CheckReport { error: Some(e.to_string()), ..CheckReport::default() };
            self.try_check(job, keys).await.unwrap_or_else(failed)
        })
    }

    fn copy<'a>(
        &'a self,
        job: &'a CopyJob,
        keys: Keys,
        progress: &'a (dyn Fn(CopyReport) + Send + Sync),
    ) -> Boxed<'a, CopyReport> {
        Box::pin(async move {
            let last = std::sync::Mutex::new(Progress::default());
            let tell = |p: Progress| {
                *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = p;
                progress(report(job, state(p.phase), p, None));
            };
            let done = match self.job(job, keys) {
                Ok(job) => self.try_copy(job, tell).await,
                Err(error) => Err(error),
            };
            let moved = *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match done {
                Ok(done) => report(job, CopyState::Succeeded, done.progress, None),
                Err(error) => {
                    let stale = matches!(error.why, Why::TagMoved { .. } | Why::ClosureChanged { .. });
                    let state = if stale { CopyState::Stale } else { CopyState::Failed };
                    report(job, state, moved, Some(error.to_string()))
                }
            }
        })
    }
}

fn report(job: &CopyJob, state: CopyState, p: Progress, error: Option<String>) -> CopyReport {
    CopyReport {
        state,
        closure: job.closure.clone(),
        bytes: p.bytes,
        bytes_total: p.bytes_total,
        skipped: p.skipped + p.mounted,
        error,
    }
}

fn state(phase: Phase) -> CopyState {
    match phase {
        Phase::Listing | Phase::Planning | Phase::Copying => CopyState::Copying,
        Phase::Verifying | Phase::Tagging | Phase::Done => CopyState::Verifying,
    }
}

fn bad(endpoint: &Endpoint, error: &NameError) -> Error {
    Error::new(At { registry: endpoint.name(), ..At::default() }, Why::Config(error.to_string()))
}

fn root(said: &said::Root) -> Result<Root, NameError> {
    let said::Root { repository, to_repository, tag, digest } = said.clone();
    for name in [&repository, &to_repository] {
        crate::name::check_repository(name)?;
    }
    tag.as_deref().map_or(Ok(()), crate::name::check_tag)?;
    Ok(Root { repository, to_repository, tag, digest: digest.parse()? })
}

fn say_root(root: Root) -> said::Root {
    let Root { repository, to_repository, tag, digest } = root;
    said::Root { repository, to_repository, tag, digest: digest.into() }
}
