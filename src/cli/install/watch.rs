//! Waits until an agent that was installed has joined, or says why that can't be: its image is missing, its token was refused, …

use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use super::{Agent, MADE_FOR, NAME, joined_as};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::note;

const AGAIN: Duration = Duration::from_millis(500);
/// Lines of the agent's log that are read, and shown, when it fails.
const LOG_LINES: i64 = 5;
const LOG_LINES_SHOWN: usize = 3;
const LABELS: &str = "app.kubernetes.io/name=atoll,app.kubernetes.io/component=agent";

/// What container runtimes say when an image can't be had.
const NO_IMAGE: &[&str] =
    &["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"];

impl Agent {
    /// Waits until the agent holds credentials for its name and is ready.
    pub(super) async fn watch(&self, client: &Client) -> Outcome {
        let end = Instant::now() + self.timeout;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let mut told = String::new();
        loop {
            let deployment = deployments.get(NAME).await.map_err(Failure::api("read the agent's Deployment"))?;
            let joined = joined_as(client).await?.as_deref() == Some(self.name.as_str());
            if joined && is_rolled_out(&deployment) {
                return Ok(());
            }
            let why = self.waits_for(client).await?;
            if Instant::now() >= end {
                let (name, waited) = (&self.name, self.timeout.as_secs());
                return Err(Failure::unreachable(format!("cluster `{name}` has not joined within {waited} s: {why}")));
            }
            if why != told {
                note(&why);
                told = why;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What the agent's pod waits for.
    ///
    /// # Errors
    /// Waiting won't help.
    async fn waits_for(&self, client: &Client) -> Outcome<String> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let list = pods.list(&ListParams::default().labels(LABELS)).await;
        let list = list.map_err(Failure::api("list the agent's pods"))?.items;
        let made_for = self.fingerprint();
        let ours = |pod: &Pod| pod.annotations().get(MADE_FOR) == Some(&made_for);
        let newest = list.into_iter().filter(ours).max_by_key(|pod| pod.creation_timestamp().map(|t| t.0));
        let Some(pod) = newest else { return Ok("the agent's pod is not there yet".into()) };
        let name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        let Some(container) = status.container_statuses.unwrap_or_default().into_iter().next() else {
            let conditions = status.conditions.unwrap_or_default();
            let unplaced = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
            let why = unplaced.and_then(|c| c.message).unwrap_or_else(|| "it is being started".into());
            return Ok(format!("pod {name}: {why}"));
        };
        self.has_image(&name, &container)?;
        if let Some(ended) = failure_of(&container) {
            return Err(self.ended(&pods, &name, &container, ended).await);
        }
        Ok(format!("pod {name} runs and has not joined yet: does it reach the hub at {}?", self.hub))
    }

    fn has_image(&self, pod: &str, container: &ContainerStatus) -> Outcome {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
        let reason = waiting.reason.unwrap_or_default();
        if !NO_IMAGE.contains(&reason.as_str()) {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "pod {pod}: its node has no image {} ({reason}: {}); write one with `atoll image export atoll.tar` and bring it to each node with `ctr -n k8s.io images import atoll.tar`, or push it to a registry and name it with --image",
            self.image,
            waiting.message.unwrap_or_default(),
        )))
    }

    /// The agent ends with the same codes as any command, and says why.
    async fn ended(
        &self,
        pods: &Api<Pod>,
        pod: &str,
        container: &ContainerStatus,
        ended: &ContainerStateTerminated,
    ) -> Failure {
        let mut said = ended.message.clone().unwrap_or_default();
        if said.trim().is_empty() {
            let previous = container.restart_count > 0;
            let params = LogParams { tail_lines: Some(LOG_LINES), previous, ..LogParams::default() };
            said = pods.logs(pod, &params).await.unwrap_or_default();
        }
        let (name, said) = (&self.name, last_lines(&said));
        let code = u8::try_from(ended.exit_code).ok().filter(|code| (1..=4).contains(code)).unwrap_or(1);
        let message = format!("cluster `{name}` has not joined: its agent ended with {}: {said}", ended.exit_code);
        Failure { code, message }
    }
}

fn failure_of(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = || container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or_else(before).filter(|ended| ended.exit_code != 0)
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(1)
        && status.ready_replicas == Some(1)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_end_of_a_log_is_one_line() {
        assert_eq!(last_lines("a\nb\n\nc\nd\n"), "b | c | d");
        assert_eq!(last_lines(""), "");
    }
}
