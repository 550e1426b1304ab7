//! A cluster: a network namespace with four addresses, at each of which a pod runs, a process of its own.
//!
//! In: a name, a number, a folder. Out: pods that can be killed, replaced and frozen, and a link that can be cut, after which packets go nowhere
//! and nobody is told. Everything is undone when it goes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;

/// Where pods listen.
const PORT: u16 = 8080;
/// Pods of a cluster.
const PODS: usize = 4;

/// A pod that runs, or ran.
struct Running {
    at: SocketAddr,
    process: Option<Child>,
}

/// A cluster with its pods.
pub(super) struct Cluster {
    pub(super) name: &'static str,
    namespace: String,
    number: u8,
    folder: PathBuf,
    pods: Vec<Running>,
    /// Pods that were replaced and still run.
    replaced: Vec<Running>,
    /// The last part of the next new address.
    next: u8,
}

impl Cluster {
    /// Makes the namespace and starts its pods.
    pub(super) fn make(name: &'static str, number: u8, folder: &Path) -> Result<Self> {
        let namespace = format!("atoll-fail-{name}");
        let mut cluster = Self {
            name,
            namespace,
            number,
            folder: folder.to_owned(),
            pods: Vec::new(),
            replaced: Vec::new(),
            next: 10,
        };
        let (ns, near) = (cluster.namespace.clone(), cluster.cable());
        let _ = ip(&["netns", "del", &ns]);
        ip(&["netns", "add", &ns])?;
        ip(&["link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &ns])?;
        ip(&["addr", "add", &format!("10.231.{number}.1/24"), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        ip(&["-n", &ns, "link", "set", "eth0", "up"])?;
        ip(&["-n", &ns, "link", "set", "lo", "up"])?;
        for _ in 0..PODS {
            let pod = cluster.fresh()?;
            cluster.pods.push(pod);
        }
        Ok(cluster)
    }

    fn cable(&self) -> String {
        format!("atollf{}", self.number)
    }

    /// Where pods are that the hub knows of as ready.
    pub(super) fn ready(&self) -> Vec<SocketAddr> {
        self.pods.iter().filter(|pod| pod.process.is_some()).map(|pod| pod.at).collect()
    }

    /// A pod at an address that nobody had.
    fn fresh(&mut self) -> Result<Running> {
        let address = Ipv4Addr::new(10, 231, self.number, self.next);
        self.next += 1;
        ip(&["-n", &self.namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        let at = SocketAddr::new(IpAddr::V4(address), PORT);
        Ok(Running { at, process: Some(self.spawn(at)?) })
    }

    fn spawn(&self, at: SocketAddr) -> Result<Child> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(std::env::current_exe()?);
        command.args(["pod", &at.to_string()]).arg(&self.folder).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().ok_or("no stdout")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line)?;
        if line.starts_with("ready ") { Ok(child) } else { Err(format!("pod {at}: `{line}`").into()) }
    }

    /// Kills a pod: its connections are reset.
    pub(super) fn kill(&mut self, pod: usize) -> Result<()> {
        end(&mut self.pods[pod])
    }

    /// Kills all of them.
    pub(super) fn kill_all(&mut self) -> Result<()> {
        self.pods.iter_mut().try_for_each(end)
    }

    /// Starts a pod again where it was.
    pub(super) fn start_at(&mut self, pod: usize) -> Result<()> {
        let process = self.spawn(self.pods[pod].at)?;
        self.pods[pod].process = Some(process);
        Ok(())
    }

    /// Starts all of them again.
    pub(super) fn start_all(&mut self) -> Result<()> {
        (0..self.pods.len()).try_for_each(|pod| self.start_at(pod))
    }

    /// Starts a new pod in the place of one that goes on for now.
    pub(super) fn replace(&mut self, pod: usize) -> Result<()> {
        let fresh = self.fresh()?;
        self.replaced.push(std::mem::replace(&mut self.pods[pod], fresh));
        Ok(())
    }

    /// Tells replaced pods to end as a kubelet does, and waits for them.
    pub(super) async fn stop_replaced(&mut self) -> Result<()> {
        for mut pod in std::mem::take(&mut self.replaced) {
            let Some(mut child) = pod.process.take() else { continue };
            signal(&child, "TERM")?;
            tokio::task::spawn_blocking(move || child.wait()).await??;
        }
        Ok(())
    }

    /// Stops the processes where they are, connections and all, or lets them go on.
    pub(super) fn freeze(&self, frozen: bool) -> Result<()> {
        let name = if frozen { "STOP" } else { "CONT" };
        self.pods.iter().filter_map(|pod| pod.process.as_ref()).try_for_each(|child| signal(child, name))
    }

    /// From now on packets to and from the cluster go nowhere.
    pub(super) fn cut(&self) -> Result<()> {
        let rules = "add table ip atoll_fail; add chain ip atoll_fail arriving { type filter hook prerouting priority -300; policy drop; }; add chain ip atoll_fail leaving { type filter hook output priority 0; policy drop; }";
        run("ip", &["netns", "exec", &self.namespace, "nft", rules])
    }

    /// Packets pass again.
    pub(super) fn heal(&self) -> Result<()> {
        run("ip", &["netns", "exec", &self.namespace, "nft", "delete table ip atoll_fail"])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.freeze(false);
        for pod in self.pods.iter_mut().chain(&mut self.replaced) {
            let _ = end(pod);
        }
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}

fn end(pod: &mut Running) -> Result<()> {
    if let Some(mut child) = pod.process.take() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn signal(child: &Child, name: &str) -> Result<()> {
    run("kill", &[&format!("-{name}"), &child.id().to_string()])
}

fn ip(words: &[&str]) -> Result<()> {
    run("ip", words)
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let ran = Command::new(program).args(words).output()?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&ran.stderr).trim()).into())
}
