//! Breaking a member and mending it: kill, pause and resume its processes, cut its link or single services, heal.
//! A fault is all in the machine (signals, a link's state, nftables rules), so that any process may make and heal it.

use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use nix::sys::signal::Signal;

use crate::cluster;
use crate::down;
use crate::error::{Error, Result};
use crate::member::Member;
use crate::net::{TABLE, cable};
use crate::process::{self, Process, processes};
use crate::shell::{feed, run, wait};

/// What of a member a fault is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All of it.
    Member,
    /// Its API server.
    ApiServer,
    /// Its CoreDNS pods; cut: port 53 in its whole network.
    Dns,
    /// Its node: kubelet, kube-proxy, containerd and all pods; cut: pods have no network and the kubelet stands still.
    Node,
    /// One pod, `NAME` or `NAMESPACE/NAME`.
    Pod(String),
    /// Its cable to everybody else.
    Link,
}

const NODE_PARTS: [&str; 6] = ["anchor", "containerd", "shim", "pod", "kubelet", "kube-proxy"];

impl Target {
    /// Parses the words behind a member's name.
    ///
    /// # Errors
    /// Words that name nothing.
    pub fn of_words(words: &[String]) -> Result<Option<Self>> {
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            ["pod", name] => Ok(Some(Self::Pod((*name).to_owned()))),
            [one] => one.parse().map(Some),
            _ => Err(Error::Refused(format!("`{}`: one of apiserver, dns, node, pod NAME, link", words.join(" ")))),
        }
    }

    fn chain(&self) -> String {
        match self {
            Self::Pod(name) => format!("cut-pod-{}", name.replace('/', ".")),
            other => format!("cut-{other:?}").to_lowercase(),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "member" => Ok(Self::Member),
            "apiserver" => Ok(Self::ApiServer),
            "dns" => Ok(Self::Dns),
            "node" => Ok(Self::Node),
            "link" => Ok(Self::Link),
            _ => Err(Error::Refused(format!("`{word}`: one of apiserver, dns, node, pod NAME, link"))),
        }
    }
}

impl Member<'_> {
    /// Ends what the target names at once, as a loss of power does. Pods' containers come back by their kubelet.
    ///
    /// # Errors
    /// A link can't be killed; a pod of that name is not there.
    pub async fn kill(&self, target: &Target) -> Result<()> {
        let picked = self.pids(target).await?;
        if !picked.is_empty() || matches!(target, Target::Dns | Target::Pod(_)) {
            process::signal(&picked, Signal::SIGKILL);
            return Ok(());
        }
        let whole = matches!(target, Target::Member | Target::Node);
        let ids = if whole { down::containers_of(&self.dir()) } else { Default::default() };
        let name = self.plan.name();
        process::end(self.home, |found| found.member == name && Self::part_of(target, &found.part)).await?;
        down::clear_cgroups(&ids);
        Ok(())
    }

    /// Stops the target's processes where they are.
    ///
    /// # Errors
    /// As [`Member::kill`].
    pub async fn pause(&self, target: &Target) -> Result<()> {
        self.signal(target, Signal::SIGSTOP).await
    }

    /// Lets paused processes go on.
    ///
    /// # Errors
    /// As [`Member::kill`].
    pub async fn resume(&self, target: &Target) -> Result<()> {
        self.signal(target, Signal::SIGCONT).await
    }

    async fn signal(&self, target: &Target, signal: Signal) -> Result<()> {
        let mut picked = self.pids(target).await?;
        if picked.is_empty() {
            picked = processes(self.home);
            picked.retain(|found| found.member == self.plan.name() && Self::part_of(target, &found.part));
        }
        process::signal(&picked, signal);
        Ok(())
    }

    /// Cuts the whole member off.
    ///
    /// # Errors
    /// The machine refuses.
    pub async fn cut(&self) -> Result<()> {
        self.cut_off(&Target::Link).await
    }

    /// Cuts the target off: packets vanish, nobody is told.
    ///
    /// # Errors
    /// A pod of that name is not there, or the machine refuses.
    pub async fn cut_off(&self, target: &Target) -> Result<()> {
        let rules: Vec<(&str, i32, String)> = match target {
            Target::Member | Target::Link => return self.link("down").await,
            Target::ApiServer => vec![("input", 0, "tcp dport 6443 drop".into())],
            Target::Dns => ["prerouting", "output"]
                .map(|hook| (hook, -310, "meta l4proto { tcp, udp } th dport 53 drop".into()))
                .to_vec(),
            Target::Node => {
                let pods = self.plan.pods();
                let node = ["kubelet", "kube-proxy"].map(|part| self.outside().find(part)).concat();
                process::signal(&node, Signal::SIGSTOP);
                vec![
                    ("forward", 0, "drop".into()),
                    ("input", 0, format!("tcp dport 10250 drop; ip saddr {pods} drop")),
                    ("output", 0, format!("ip daddr {pods} drop")),
                ]
            }
            Target::Pod(name) => {
                let pod = self.pod(name).await?;
                let address = pod.status.and_then(|status| status.pod_ip).ok_or_else(|| {
                    Error::Refused(format!("member `{}`: pod `{name}` has no address yet", self.plan.name()))
                })?;
                let rule = format!("ip saddr {address} drop; ip daddr {address} drop");
                ["forward", "input", "output"].map(|hook| (hook, 0, rule.clone())).to_vec()
            }
        };
        let chain = target.chain();
        let mut text = String::new();
        for (hook, priority, rule) in rules {
            let name = format!("{chain}.{hook}");
            text.push_str(&format!(
                "add chain ip {TABLE} {name} {{ type filter hook {hook} priority {priority}; }}\nflush chain ip {TABLE} {name}\n"
            ));
            for one in rule.split(';') {
                text.push_str(&format!("add rule ip {TABLE} {name} {}\n", one.trim()));
            }
        }
        self.nft(&text).await
    }

    /// Undoes every fault of the target; `Member` undoes all there are, starts what was killed, and waits until the
    /// member is as it was after `up`.
    ///
    /// # Errors
    /// It does not come back in time.
    pub async fn heal(&self, target: &Target) -> Result<()> {
        match target {
            Target::Link => return self.link("up").await,
            Target::Member => self.link("up").await?,
            _ => {}
        }
        for chain in self.cuts().await? {
            let own = chain.rsplit_once('.').is_some_and(|(name, _)| name == target.chain());
            if own || *target == Target::Member {
                self.nft(&format!("delete chain ip {TABLE} {chain}\n")).await?;
            }
        }
        let mut stopped = processes(self.home);
        stopped.retain(|found| found.member == self.plan.name());
        match target {
            Target::Member => {}
            Target::Dns | Target::Pod(_) => stopped = self.pids(target).await.unwrap_or_default(),
            _ => stopped.retain(|found| Self::part_of(target, &found.part)),
        }
        process::signal(&stopped, Signal::SIGCONT);
        if !matches!(target, Target::Pod(_)) {
            self.boot().await?;
            let client = self.start().await?;
            self.settle(&client).await?;
        }
        Ok(())
    }

    /// The cuts in force, by the names of their chains.
    pub(crate) async fn cuts(&self) -> Result<Vec<String>> {
        let listed = self.outside().run(&["nft", "list", "table", "ip", TABLE], "").await?;
        let chains = listed.lines().filter_map(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"));
        Ok(chains.filter(|chain| chain.starts_with("cut-")).map(str::to_owned).collect())
    }

    /// Whether its cable is plugged in.
    pub(crate) async fn linked(&self) -> Result<bool> {
        let link = cable(self.plan.block, self.plan.node().octets()[3]);
        Ok(run(&["ip", "link", "show", "dev", &link]).await?.contains("state UP"))
    }

    async fn link(&self, state: &str) -> Result<()> {
        let link = cable(self.plan.block, self.plan.node().octets()[3]);
        run(&["ip", "link", "set", "dev", &link, state]).await?;
        if state == "up" {
            return wait("the link comes up", Duration::from_secs(10), || async {
                match self.linked().await {
                    Ok(true) => Ok(()),
                    seen => Err(format!("{seen:?}")),
                }
            })
            .await;
        }
        Ok(())
    }

    async fn nft(&self, text: &str) -> Result<()> {
        feed(&[self.outside().enter(), vec!["nft".into(), "-f".into(), "-".into()]].concat(), text).await.map(drop)
    }

    fn part_of(target: &Target, part: &str) -> bool {
        match target {
            Target::Member => true,
            Target::ApiServer => part == "kube-apiserver",
            Target::Node => NODE_PARTS.contains(&part),
            Target::Dns | Target::Pod(_) | Target::Link => false,
        }
    }

    /// The processes of targets that are pods; nothing for the others.
    pub(crate) async fn pids(&self, target: &Target) -> Result<Vec<Process>> {
        let pods = match target {
            Target::Link => {
                return Err(Error::Refused("a link can be cut and healed, not killed, paused or resumed".into()));
            }
            Target::Dns => {
                let client = cluster::client(&self.kubeconfig()).await?;
                let pods: Api<Pod> = Api::namespaced(client, "kube-system");
                let of_dns = ListParams::default().labels("k8s-app=kube-dns");
                pods.list(&of_dns).await.map_err(Error::kube("list the DNS pods"))?.items
            }
            Target::Pod(name) => vec![self.pod(name).await?],
            _ => return Ok(Vec::new()),
        };
        let ids: Vec<String> = pods.iter().flat_map(containers).collect();
        let mut found = processes(self.home);
        found.retain(|process| {
            let groups = control_groups(process.pid).unwrap_or_default();
            ids.iter().any(|id| groups.contains(id))
        });
        Ok(found)
    }

    /// Whether every pod that the API server calls Running has all of its containers on this machine.
    pub(crate) async fn alive(&self, client: &Client) -> Result<(), String> {
        let all = Api::<Pod>::all(client.clone());
        let pods = all.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let own = processes(self.home).into_iter().filter(|process| process.member == self.plan.name());
        let groups: Vec<String> = own.filter_map(|found| control_groups(found.pid)).collect();
        for pod in pods {
            let running = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
            let ids = containers(&pod);
            let lacks = |id: &String| !groups.iter().any(|group| group.contains(id));
            if running && (ids.is_empty() || ids.iter().any(lacks)) {
                return Err(format!("pod {} is not really running", pod.name_any()));
            }
        }
        Ok(())
    }

    async fn pod(&self, name: &str) -> Result<Pod> {
        let client = cluster::client(&self.kubeconfig()).await?;
        let pods: Api<Pod> = Api::all(client);
        let all = pods.list(&ListParams::default()).await.map_err(Error::kube("list pods"))?;
        let full = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        all.items.into_iter().find(|pod| pod.name_any() == name || full(pod) == name).ok_or_else(|| {
            Error::Refused(format!("member `{}` has no pod `{name}`; see kubectl get pods -A", self.plan.name()))
        })
    }
}

/// The ids of a pod's containers, as its node last said.
fn containers(pod: &Pod) -> Vec<String> {
    let statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    let ids = statuses.filter_map(|status| status.container_id.as_ref()?.strip_prefix("containerd://"));
    ids.map(str::to_owned).collect()
}

/// A process's control groups, whose paths hold its container's id.
fn control_groups(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}
