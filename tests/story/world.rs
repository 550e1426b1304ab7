//! One world and what people do in it: `kubectl` on the hub and on members, `atoll`, `dig`, `curl`; and what breaks.
//! In: what [`crate::demo`] or [`crate::bed`] began. Out: what was said. It prints what the scenes prove, with times.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use crate::bed::Bed;
use crate::demo::Demo;
use crate::dig::{self, Answer, Question};
use crate::said::{Said, feed, run, until};

/// The domain of everything.
pub(crate) const APEX: &str = "atoll.internal";
/// The members that are Kubernetes clusters.
pub(crate) const MEMBERS: [&str; 5] = ["dev", "test", "prod-eu", "prod-us", "dr"];

/// How somebody gets into an API server.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) context: Option<String>,
}

impl Access {
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec!["--kubeconfig".to_owned(), self.kubeconfig.display().to_string()];
        words.extend(self.context.iter().flat_map(|context| ["--context".to_owned(), context.clone()]));
        words
    }
}

/// The people of the story.
#[derive(Debug)]
pub(crate) struct People {
    /// May all.
    pub(crate) admin: Access,
    /// May ask for images; the user `dev`.
    pub(crate) dev: Access,
    /// May approve; the user `approver` in the group `approvers`.
    pub(crate) approver: Access,
}

/// What is different between the worlds.
#[derive(Debug)]
pub(crate) enum Ground {
    Demo(Box<Demo>),
    Bed(Box<Bed>),
}

/// A federation, with what tests it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) atoll: PathBuf,
    pub(crate) kubectl: PathBuf,
    /// A folder of the story's own.
    pub(crate) dir: PathBuf,
    pub(crate) people: People,
    pub(crate) dns: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) members: BTreeMap<String, Access>,
    pub(crate) ground: Ground,
    pub(crate) began: Instant,
    pub(crate) proved: AtomicUsize,
}

/// The binary under test.
pub(crate) fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("ATOLL_BIN")
        .context("ATOLL_BIN is not set: it names the binary of which the story is told")?;
    let path = std::path::absolute(PathBuf::from(path))?;
    ensure!(path.is_file(), "ATOLL_BIN: {} is not there", path.display());
    Ok(path)
}

impl World {
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn proved(&self) -> usize {
        self.proved.load(Ordering::Relaxed)
    }

    /// Begins a scene.
    pub(crate) fn scene(&self, title: &str) {
        println!("\n{} · {title}", self.name);
    }

    /// Something holds; what was just seen.
    pub(crate) fn proves(&self, what: impl Display) {
        self.proved.fetch_add(1, Ordering::Relaxed);
        println!("  [{:6.1} s] {what}", self.age().as_secs_f32());
    }

    /// What this world can't show.
    pub(crate) fn leaves_out(&self, what: &str) {
        println!("  left out: {what}");
    }

    fn kubectl_command(&self, access: &Access, words: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .args(access.words())
            .args(words)
            .env("KUBECACHEDIR", self.dir.join("kubectl-cache"))
            .env("HOME", &self.dir);
        command
    }

    /// `kubectl` as somebody.
    pub(crate) async fn kubectl_as(&self, access: &Access, words: &[&str]) -> Result<Said> {
        run(self.kubectl_command(access, words)).await
    }

    /// `kubectl` on the hub as its administrator.
    pub(crate) async fn kubectl(&self, words: &[&str]) -> Result<Said> {
        self.kubectl_as(&self.people.admin, words).await
    }

    /// `kubectl` on the hub, with an input and variables.
    pub(crate) fn kubectl_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = self.kubectl_command(&self.people.admin, words);
        command.envs(variables.iter().copied());
        command
    }

    /// `kubectl apply` of manifests on the hub.
    pub(crate) async fn apply(&self, manifests: &str) -> Result<()> {
        self.apply_as(&self.people.admin, manifests).await?.ok().map(drop)
    }

    /// The same as somebody, who may be refused.
    pub(crate) async fn apply_as(&self, access: &Access, manifests: &str) -> Result<Said> {
        feed(self.kubectl_command(access, &["apply", "--server-side", "--field-manager=people", "-f", "-"]), manifests)
            .await
    }

    /// One object of the hub.
    pub(crate) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        self.kubectl(&["get", kind, "-n", namespace, name, "-o", "json"]).await?.json()
    }

    /// `kubectl` in a member, as its own administrator.
    pub(crate) async fn member(&self, member: &str, words: &[&str]) -> Result<Said> {
        let access = self.members.get(member).with_context(|| format!("no member {member}"))?;
        self.kubectl_as(access, words).await
    }

    /// `kubectl apply` in a member.
    pub(crate) async fn member_apply(&self, member: &str, manifests: &str) -> Result<()> {
        let access = self.members.get(member).with_context(|| format!("no member {member}"))?;
        self.apply_as(access, manifests).await?.ok().map(drop)
    }

    /// One object of a member.
    pub(crate) async fn member_get(&self, member: &str, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        self.member(member, &["get", kind, "-n", namespace, name, "-o", "json"]).await?.json()
    }

    /// `atoll` as somebody on the hub.
    pub(crate) async fn atoll_as(&self, access: &Access, words: &[&str]) -> Result<Said> {
        let mut command = self.atoll_command(words);
        command.args(access.words());
        run(command).await
    }

    /// `atoll` as the hub's administrator.
    pub(crate) async fn atoll(&self, words: &[&str]) -> Result<Said> {
        self.atoll_as(&self.people.admin, words).await
    }

    /// `atoll` as typed.
    pub(crate) fn atoll_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.atoll);
        command.args(words).env("ATOLL_HOME", self.dir.join("home")).env_remove("KUBECONFIG").env_remove("ATOLL_TOKEN");
        command
    }

    /// Asks the DNS server by UDP from where the story stands.
    pub(crate) async fn dig(&self, name: &str, kind: &str) -> Result<Answer> {
        dig::dig(Command::new("dig"), self.dns, &Question { name, kind, tcp: false, source: None }).await
    }

    /// The same by TCP.
    pub(crate) async fn dig_tcp(&self, name: &str, kind: &str) -> Result<Answer> {
        dig::dig(Command::new("dig"), self.dns, &Question { name, kind, tcp: true, source: None }).await
    }

    /// Asks the DNS server from inside a pod of a member.
    pub(crate) async fn dig_in(&self, member: &str, pod: (&str, &str), name: &str) -> Result<Answer> {
        let question = |source| Question { name, kind: "A", tcp: false, source };
        match &self.ground {
            Ground::Bed(bed) => {
                let command = bed.in_pod(member, &format!("{}/{}", pod.0, pod.1), "dig").await?;
                dig::dig(command, self.dns, &question(None)).await
            }
            // Its pods share our network; what tells them apart is their address.
            Ground::Demo(_) => {
                let pod = self.member_get(member, "pod", pod.0, pod.1).await?;
                let address: IpAddr = text(&pod, "/status/podIP").parse().context("the pod has an address")?;
                dig::dig(Command::new("dig"), self.dns, &question(Some(address))).await
            }
        }
    }

    /// The name of a ready pod of a member.
    pub(crate) async fn pod(&self, member: &str, namespace: &str, selector: &str) -> Result<String> {
        until(&format!("a ready pod {selector} in {member}"), Duration::from_secs(60), async || {
            let pods =
                self.member(member, &["get", "pods", "-n", namespace, "-l", selector, "-o", "json"]).await?.json()?;
            let ready = list(&pods, "/items").iter().find(|pod| condition(pod, "Ready").0 == "True");
            ready.map(|pod| text(pod, "/metadata/name").to_owned()).with_context(|| format!("none: {pods}"))
        })
        .await
    }

    /// The member whose pods or services have this address.
    pub(crate) async fn owner(&self, address: IpAddr) -> Result<String> {
        let clusters = self.kubectl(&["get", "clusters", "-o", "json"]).await?.json()?;
        for cluster in list(&clusters, "/items") {
            let ranges = ["/status/cidrs/pods", "/status/cidrs/services"].map(|path| list(cluster, path)).concat();
            if ranges.iter().filter_map(Value::as_str).any(|range| holds(range, address)) {
                return Ok(text(cluster, "/metadata/name").to_owned());
            }
        }
        bail!("{address} is nobody's")
    }

    /// The members whose endpoints an answer holds, each once.
    pub(crate) async fn owners(&self, answer: &Answer) -> Result<Vec<String>> {
        let mut owners = Vec::new();
        for address in answer.some()? {
            owners.push(self.owner(address).await?);
        }
        owners.sort_unstable();
        owners.dedup();
        Ok(owners)
    }

    /// Where a registry of the hub is, with the credentials that its member holds for it.
    pub(crate) async fn registry(&self, name: &str) -> Result<atoll_testbed::registry::Registry> {
        let registry = self.get("registry", "default", name).await?;
        let address = text(&registry, "/spec/url").trim_start_matches("http://").trim_end_matches('/').to_owned();
        let secret = text(&registry, "/spec/credentialsRef/name");
        if secret.is_empty() {
            return Ok(atoll_testbed::registry::Registry { address, credentials: None });
        }
        let secret = self.member_get(text(&registry, "/spec/cluster"), "secret", "atoll-system", secret).await?;
        let word = |path| {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text(&secret, path))?;
            anyhow::Ok(String::from_utf8(bytes)?)
        };
        let credentials = Some((word("/data/username")?, word("/data/password")?));
        Ok(atoll_testbed::registry::Registry { address, credentials })
    }

    /// Cuts a member off.
    pub(crate) async fn cut(&self, member: &str) -> Result<()> {
        match &self.ground {
            Ground::Demo(demo) => demo.control(self, "break", member).await,
            Ground::Bed(bed) => bed.cut(member).await,
        }
    }

    /// Mends it.
    pub(crate) async fn heal(&self, member: &str) -> Result<()> {
        match &self.ground {
            Ground::Demo(demo) => demo.control(self, "heal", member).await,
            Ground::Bed(bed) => bed.heal(member).await,
        }
    }

    /// Ends a part (`hub`, `dns`, `gateway`) at once.
    pub(crate) async fn kill(&self, part: &str) -> Result<()> {
        match &self.ground {
            Ground::Demo(demo) => demo.control(self, "break", part).await,
            Ground::Bed(bed) => bed.process(part)?.kill().await,
        }
    }

    /// Starts it again.
    pub(crate) async fn start(&self, part: &str) -> Result<()> {
        match &self.ground {
            Ground::Demo(demo) => demo.control(self, "heal", part).await,
            Ground::Bed(bed) => bed.process(part)?.start().await,
        }
    }

    /// Prints the last lines of every process.
    pub(crate) fn last_words(&self) {
        match &self.ground {
            Ground::Demo(demo) => demo.process.print_tail(),
            Ground::Bed(bed) => bed.last_words(),
        }
    }

    /// Takes it away.
    pub(crate) async fn end(self) -> Result<()> {
        let ended = match self.ground {
            Ground::Demo(demo) => demo.end().await,
            Ground::Bed(bed) => bed.end().await,
        };
        // Kept where it is asked for, to look at.
        if std::env::var_os("STORY_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        ended
    }
}

/// A folder for one telling, away from the repository.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("atoll-story-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("home")).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Writes a file of the story's folder and says where it is.
pub(crate) fn write(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A string of an object by its JSON pointer; empty where it is not.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A list of an object by its JSON pointer; empty where it is not.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Status, reason and message of a condition.
pub(crate) fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let all = list(object, "/status/conditions");
    let found = all.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
    let word = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (word("status"), word("reason"), word("message"))
}

/// Whether a range (`10.1.0.0/16`) holds an address.
fn holds(range: &str, address: IpAddr) -> bool {
    let Some((start, len)) = range.split_once('/') else { return false };
    let (Ok(start), Ok(len), IpAddr::V4(address)) = (start.parse::<Ipv4Addr>(), len.parse::<u32>(), address) else {
        return false;
    };
    let shift = 32 - len.min(32);
    u32::from(start).checked_shr(shift) == u32::from(address).checked_shr(shift)
}

/// Waits until a thing of the hub is as wanted.
pub(crate) async fn becomes(
    world: &World,
    what: &str,
    within: u64,
    (kind, namespace, name): (&str, &str, &str),
    check: impl Fn(&Value) -> Result<()>,
) -> Result<Value> {
    until(what, Duration::from_secs(within), async || {
        let object = world.get(kind, namespace, name).await?;
        check(&object).with_context(|| format!("{kind} {name} has status {}", object["status"]))?;
        Ok(object)
    })
    .await
}
