//! Image copies into this member's registry: checked, approved, carried out by the copy engine.
//!
//! In: check and copy jobs that the hub wants. Out: reports. The agent counts the votes itself, whatever the hub says, and
//! brings the credentials from Secrets of its own member, which the hub never sees. A job taken back is cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::copy::{
    CheckJob, CheckReport, Copy, CopyJob, CopyReport, CopyState, Credentials, Keys, RegistryEndpoint, approved,
};
use atoll_api::facts::{Facts, key};
use atoll_api::kinds::SYSTEM_NAMESPACE;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::SECRET;
use crate::desired::Word;

/// Jobs at work at once; the others wait.
const PARALLEL_MAX: usize = 2;

/// What a job is, whole: another wish under the same key is another job.
#[derive(Clone, PartialEq)]
enum Job {
    Check(Arc<CheckJob>),
    Copy(Arc<CopyJob>),
}

/// Carries out image jobs.
#[derive(Clone)]
pub(crate) struct Copies {
    pub(crate) client: kube::Client,
    pub(crate) copy: Arc<dyn Copy>,
    pub(crate) status: watch::Sender<Arc<Facts>>,
}

impl Copies {
    /// Runs until `shutdown`. What was uploaded by a copy that is cut short stays, and is found again.
    pub(crate) async fn run(self, mut word: watch::Receiver<Word>, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(PARALLEL_MAX));
        let mut begun: BTreeMap<String, (Job, CancellationToken)> = BTreeMap::new();
        loop {
            let now = word.borrow_and_update().clone();
            if let (true, Some(desired)) = (now.heard, &now.desired) {
                let checks =
                    desired.checks.iter().map(|(k, j)| (format!("{}/{k}", key::CHECK), Job::Check(Arc::clone(j))));
                let copies =
                    desired.copies.iter().map(|(k, j)| (format!("{}/{k}", key::COPY), Job::Copy(Arc::clone(j))));
                let wanted: BTreeMap<String, Job> = checks.chain(copies).collect();
                self.end_unwanted(&wanted, &desired.unread, &mut begun);
                for (name, job) in wanted {
                    if !begun.contains_key(&name) {
                        let token = shutdown.child_token();
                        begun.insert(name.clone(), (job.clone(), token.clone()));
                        tracker.spawn(self.clone().work(name, job, Arc::clone(&slots), token));
                    }
                }
            }
            tokio::select! {
                Ok(()) = word.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    fn end_unwanted(
        &self,
        wanted: &BTreeMap<String, Job>,
        unread: &BTreeSet<String>,
        begun: &mut BTreeMap<String, (Job, CancellationToken)>,
    ) {
        begun.retain(|name, (job, token)| {
            let keep = unread.contains(name) || wanted.get(name) == Some(job);
            if !keep {
                token.cancel();
                self.status.send_if_modified(|facts| facts.json(name).is_some() && Arc::make_mut(facts).remove(name));
            }
            keep
        });
    }

    async fn work(self, name: String, job: Job, slots: Arc<Semaphore>, shutdown: CancellationToken) {
        let work = async {
            let Ok(_slot) = slots.acquire().await else { return };
            match &job {
                Job::Check(job) => {
                    let report = self.check(job).await;
                    self.say(&name, &shutdown, &report);
                }
                Job::Copy(job) => {
                    let report = self.copy(&name, job, &shutdown).await;
                    tracing::info!(name, state = ?report.state, error = report.error, "copy ended");
                    self.say(&name, &shutdown, &report);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn check(&self, job: &CheckJob) -> CheckReport {
        match self.keys(&job.from, &job.to).await {
            Ok(keys) => self.copy.check(job, keys).await,
            Err(error) => CheckReport { error: Some(error), ..CheckReport::default() },
        }
    }

    async fn copy(&self, name: &str, job: &CopyJob, shutdown: &CancellationToken) -> CopyReport {
        let failed = |error: String| CopyReport {
            state: CopyState::Failed,
            closure: job.closure.clone(),
            error: Some(error),
            ..CopyReport::default()
        };
        if let Err(not) = approved(&job.quorum, &job.votes, &job.requester, &job.closure) {
            tracing::warn!(name, %not, "the hub wants a copy that is not approved, refused");
            return failed(format!("not approved: {not}"));
        }
        match self.keys(&job.from, &job.to).await {
            Ok(keys) => self.copy.copy(job, keys, &|progress| self.say(name, shutdown, &progress)).await,
            Err(error) => failed(error),
        }
    }

    /// Nothing is said any more of a job that was taken back.
    fn say<T: serde::Serialize>(&self, name: &str, shutdown: &CancellationToken, report: &T) {
        if !shutdown.is_cancelled() {
            self.status.send_if_modified(|facts| Arc::make_mut(facts).put(name, report));
        }
    }

    async fn keys(&self, from: &RegistryEndpoint, to: &RegistryEndpoint) -> Result<Keys, String> {
        Ok(Keys { from: self.key(from).await?, to: self.key(to).await? })
    }

    /// The credentials that a registry asks for. A Secret that names its `server` is good for that one only, so that a
    /// hostile hub can't have them sent elsewhere.
    async fn key(&self, registry: &RegistryEndpoint) -> Result<Option<Credentials>, String> {
        let Some(name) = registry.credentials.as_deref() else { return Ok(None) };
        let problem = |what: &str| format!("Secret {SYSTEM_NAMESPACE}/{name} for registry {}: {what}", registry.name);
        if name == SECRET {
            return Err(problem("is the agent's own"));
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let secret = secrets.get_opt(name).await.map_err(|e| problem(&e.to_string()))?;
        let data = secret.ok_or_else(|| problem("does not exist in this member"))?.data.unwrap_or_default();
        let text = |key: &str| data.get(key).and_then(|b| String::from_utf8(b.0.clone()).ok());
        if let Some(server) = text("server")
            && !is_at(&registry.url, &server)
        {
            return Err(problem(&format!("is for {server}, not for {}", registry.url)));
        }
        match (text("username"), text("password")) {
            (Some(username), Some(password)) => Ok(Some(Credentials { username, password })),
            _ => Err(problem("has no `username` and `password`")),
        }
    }
}

/// Whether a URL is at this host, or host and port.
fn is_at(url: &str, server: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ is a user name, never the host.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    server == authority || server == host
}

#[cfg(test)]
mod tests {
    use super::is_at;

    #[test]
    fn a_server_is_the_host_of_the_url_and_nothing_that_looks_like_it() {
        for (url, server, same) in [
            ("https://prod.example/v2", "prod.example", true),
            ("http://prod.example:5000", "prod.example:5000", true),
            ("http://prod.example:5000", "prod.example", true),
            ("http://prod.example:5000", "prod.example:443", false),
            ("https://prod.example@evil.example", "prod.example", false),
            ("https://evil.example/prod.example", "prod.example", false),
            ("https://evil.example#@prod.example", "prod.example", false),
        ] {
            assert_eq!(is_at(url, server), same, "{url} {server}");
        }
    }
}
