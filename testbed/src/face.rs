//! What a test asks of a member: its client, addresses, commands in its network. Faults are in `faults`.

use std::net::Ipv4Addr;
use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::process::Command;

use crate::cluster;
use crate::error::{Error, Result};
use crate::faults::Target;
use crate::member::Member;
use crate::plan::MemberPlan;
use crate::spec::MemberSpec;

impl Member<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.plan.name()
    }

    /// What it was asked to be.
    #[must_use]
    pub fn spec(&self) -> &MemberSpec {
        &self.plan.spec
    }

    /// Its addresses and ranges.
    #[must_use]
    pub fn plan(&self) -> &MemberPlan {
        self.plan
    }

    /// A client as its administrator. Its API server's address is reachable from the root namespace and every member.
    ///
    /// # Errors
    /// The kubeconfig can't be read.
    pub async fn kube(&self) -> Result<Client> {
        cluster::client(&self.kubeconfig()).await
    }

    /// Its node's address, reachable also where its pods are not.
    #[must_use]
    pub fn node(&self) -> Ipv4Addr {
        self.plan.node()
    }

    /// Host and port of its CoreDNS's service.
    #[must_use]
    pub fn dns(&self) -> String {
        format!("{}:53", self.plan.dns())
    }

    /// The addresses of the pods of a namespace that a label selector picks and that are ready to serve.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pod_addresses(&self, namespace: &str, selector: &str) -> Result<Vec<Ipv4Addr>> {
        let pods: Api<Pod> = Api::namespaced(self.kube().await?, namespace);
        let chosen = ListParams::default().labels(selector);
        let found = pods.list(&chosen).await.map_err(Error::kube(format!("list pods of {namespace}")))?;
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        let addresses = found.items.into_iter().filter(ready).filter_map(|pod| pod.status?.pod_ip?.parse().ok());
        Ok(addresses.collect())
    }

    /// A command that will run in its network namespace, beside its node; the caller gives it arguments and starts it.
    /// It ends with its handle, with a kill of the whole member, and with `down`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.plan.namespace())).arg("--").arg(program);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.env(crate::process::MARK, format!("{}/{}/guest", self.home.key, self.name()));
        command
    }

    /// A command that will run in the network of one of its pods, `NAME` or `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// A pod of that name is not there or does not run.
    pub async fn command_in_pod(&self, pod: &str, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let found = self.pids(&Target::Pod(pod.to_owned())).await?;
        let first = found.first().ok_or_else(|| {
            Error::Refused(format!("member `{}`: pod `{pod}` has no process that runs", self.plan.name()))
        })?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", first.pid)).arg("--").arg(program);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command in its network namespace to its end and returns what it wrote.
    ///
    /// # Errors
    /// It can't be started or fails; the message holds what it said.
    pub async fn exec(&self, words: &[&str]) -> Result<String> {
        self.outside().run(words, "").await
    }
}
