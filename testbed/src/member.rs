//! Brings one member up: files, then programs, then what runs in it. Called again after a kill it starts what is
//! missing on the same data, as a machine does after its power came back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use serde_json::Value;

use crate::cluster;
use crate::error::{Error, Result};
use crate::home::{Home, write};
use crate::images::Images;
use crate::manifests::{self, ECHO};
use crate::node;
use crate::pki::Authority;
use crate::plan::MemberPlan;
use crate::plane::{Plane, words};
use crate::process::Place;
use crate::programs::Programs;
use crate::registry::{HTPASSWD, PASSWORD, Registry, USER, config};
use crate::shell::{run, wait};
use crate::spec::RegistryProgram;

/// Enough for a machine that compiles at the same time.
pub(crate) const READY: Duration = Duration::from_secs(180);

/// One member of a testbed.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    pub(crate) home: &'a Home,
    pub(crate) programs: &'a Programs,
    pub(crate) plan: &'a MemberPlan,
}

impl Member<'_> {
    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.home.member(self.plan.name())
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.dir().join("pki/admin.kubeconfig")
    }

    /// Its registry and how to get in.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let credentials = self.plan.spec.registry_password.then(|| (USER.to_owned(), PASSWORD.to_owned()));
        Registry { address: self.plan.registry(), credentials }
    }

    /// Where its control plane and registry run.
    pub(crate) fn outside(&self) -> Place<'_> {
        Place { home: self.home, member: self.plan.name(), namespace: self.plan.namespace(), anchor: None }
    }

    /// Where its node runs: a mount namespace of its own, which ends with its last process and its mounts with it.
    pub(crate) fn inside(&self) -> Result<Place<'_>> {
        let mut place = self.outside();
        let found = place.find("anchor");
        let anchor =
            found.first().ok_or_else(|| Error::Refused(format!("member `{}` has no node", self.plan.name())))?;
        place.anchor = Some(anchor.pid);
        Ok(place)
    }

    fn plane<'b>(&'b self, dir: &'b Path) -> Plane<'b> {
        Plane {
            programs: self.programs,
            dir,
            address: self.plan.node(),
            services: self.plan.services(),
            pods: Some(self.plan.pods()),
        }
    }

    /// Writes every file that does not change while the member lives.
    pub(crate) fn write_files(&self, runtime: &Value) -> Result<()> {
        let (dir, plan, registry) = (self.dir(), self.plan, self.registry());
        let pki = dir.join("pki");
        let authority = Authority::new(&pki, plan.name())?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        authority.server("apiserver", &names, &[plan.node(), plan.kubernetes(), std::net::Ipv4Addr::LOCALHOST])?;
        let node = format!("system:node:{}", plan.node_name());
        let masters = Some("system:masters");
        for (file, user, group) in [
            ("admin", "admin", masters),
            ("apiserver-kubelet", "kube-apiserver-kubelet-client", masters),
            ("manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
            ("proxy", "system:kube-proxy", Some("system:node-proxier")),
            ("kubelet", &node, Some("system:nodes")),
        ] {
            authority.user(file, user, group, plan.name(), plan.node())?;
        }
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write(&dir.join("kubelet.json"), node::kubelet(plan, &dir, cores, kib / 1024))?;
        write(&dir.join("proxy.json"), node::proxy(plan, &dir))?;
        write(&dir.join("resolv.conf"), "options ndots:1\n")?;
        write(&dir.join("cni/10-pods.conflist"), node::cni(plan, &dir))?;
        write(&dir.join("containerd/config.toml"), node::containerd(&dir, &registry))?;
        let mark = format!("{}/{}/pod", self.home.key, plan.name());
        write(&dir.join("containerd/spec.json"), node::spec(runtime, &mark, plan.name()).to_string())?;
        for host in ["_default", "docker.io", &registry.address] {
            write(&dir.join("certs.d").join(host).join("hosts.toml"), node::hosts(&registry))?;
        }
        let htpasswd = dir.join("registry/htpasswd").display().to_string();
        write(Path::new(&htpasswd), HTPASSWD)?;
        let guarded = plan.spec.registry_password.then_some(htpasswd.as_str());
        let storage = dir.join("registry/data").display().to_string();
        write(&dir.join("registry/config.yml"), config(&storage, &registry.address, guarded))
    }

    /// Starts whatever does not run of what stands alone: registry, etcd, API server, containerd.
    pub(crate) async fn boot(&self) -> Result<()> {
        let dir = self.dir();
        let plane = self.plane(&dir);
        self.start_registry().await?;
        self.start_part("etcd", &plane.etcd()).await?;
        self.start_part("kube-apiserver", &plane.apiserver()).await?;
        self.start_containerd().await
    }

    /// Waits until the API server is ready, starts what speaks to it and does not run, and returns a client.
    pub(crate) async fn start(&self) -> Result<Client> {
        let dir = self.dir();
        let plane = self.plane(&dir);
        let client = cluster::client(&self.kubeconfig()).await?;
        self.wait_for("kube-apiserver", || cluster::ready(&client)).await?;
        self.start_part("kube-controller-manager", &plane.manager()).await?;
        self.start_part("kube-scheduler", &plane.scheduler()).await?;
        self.start_node().await?;
        Ok(client)
    }

    /// Starts a part of the control plane, if it does not run.
    pub(crate) async fn start_part(&self, part: &str, line: &[String]) -> Result<()> {
        if !self.outside().find(part).is_empty() {
            return Ok(());
        }
        self.outside().start(part, line, &[]).await
    }

    async fn start_registry(&self) -> Result<()> {
        let program = match self.plan.spec.registry {
            RegistryProgram::Docker2 => "/usr/bin/docker-registry".to_owned(),
            RegistryProgram::Distribution3 => self.programs.path("registry").display().to_string(),
        };
        if !self.outside().find("registry").is_empty() {
            return Ok(());
        }
        let line = words(&program, &["serve".into(), self.dir().join("registry/config.yml").display().to_string()]);
        // Distribution 3 sends traces to localhost unless told not to.
        self.outside().start("registry", &line, &[("OTEL_TRACES_EXPORTER", "none".into())]).await
    }

    /// The mount namespace and containerd in it.
    async fn start_containerd(&self) -> Result<()> {
        let dir = self.dir();
        if self.outside().find("anchor").is_empty() {
            // After a kill the tasks of before are as gone as after a loss of power.
            for stale in ["containerd/state", "run-containerd", "ipam"] {
                let _ = fs::remove_dir_all(dir.join(stale));
            }
            self.start_anchor().await?;
        }
        let place = self.inside()?;
        if place.find("containerd").is_empty() {
            let config = dir.join("containerd/config.toml").display().to_string();
            place.start("containerd", &words("/usr/bin/containerd", &["--config".into(), config]), &[]).await?;
        }
        let socket = dir.join("containerd/c.sock");
        self.wait_for("containerd", || async {
            tokio::net::UnixStream::connect(&socket).await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    async fn start_anchor(&self) -> Result<()> {
        let dir = self.dir();
        // Folders that node programs use by fixed names, each with the member's own behind it.
        let folders = [
            ("kubelet", "/var/lib/kubelet"),
            ("log/pods", "/var/log/pods"),
            ("log/containers", "/var/log/containers"),
            ("cni-state", "/var/lib/cni"),
            ("run-containerd", "/run/containerd"),
        ];
        let mut script = "set -e; mount --make-rshared /".to_owned();
        for (own, fixed) in folders {
            let own = dir.join(own);
            fs::create_dir_all(&own).map_err(Error::on(&own))?;
            fs::create_dir_all(fixed).map_err(Error::on(Path::new(fixed)))?;
            script.push_str(&format!("; mount --bind {} {fixed}", own.display()));
        }
        script.push_str(&format!("; exec {}", self.programs.path("pause").display()));
        let line = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", &script].map(str::to_owned);
        let place = self.outside();
        place.start("anchor", &line, &[]).await?;
        self.wait_for("anchor", || async {
            let found = place.find("anchor");
            let pid = found.first().map(|process| process.pid).ok_or("it is not there")?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim() == "pause" { Ok(()) } else { Err(format!("it is still {}", name.trim())) }
        })
        .await
    }

    /// The kubelet and kube-proxy, if they don't run.
    pub(crate) async fn start_node(&self) -> Result<()> {
        self.start_containerd().await?;
        let (dir, place) = (self.dir(), self.inside()?);
        let program = |name: &str| self.programs.path(name).display().to_string();
        let name = format!("--hostname-override={}", self.plan.node_name());
        if place.find("kubelet").is_empty() {
            let line = words(
                &program("kubelet"),
                &[
                    format!("--config={}", dir.join("kubelet.json").display()),
                    format!("--kubeconfig={}", dir.join("pki/kubelet.kubeconfig").display()),
                    format!("--cert-dir={}", dir.join("pki/kubelet").display()),
                    format!("--node-ip={}", self.plan.node()),
                    name,
                ],
            );
            place.start("kubelet", &line, &[]).await?;
        }
        if place.find("kube-proxy").is_empty() {
            let line = words(&program("kube-proxy"), &[format!("--config={}", dir.join("proxy.json").display())]);
            place.start("kube-proxy", &line, &[]).await?;
        }
        Ok(())
    }

    /// Brings images in: ours for the node, the story's for the registry.
    pub(crate) async fn bring_images(&self, images: &Images) -> Result<()> {
        for archive in &images.archives {
            self.import(archive).await?;
        }
        let registry = self.registry();
        self.wait_for("registry", || registry.ready()).await?;
        registry.push(&images.web_1, "shop/web", "1").await?;
        if self.plan.name() == "dev" {
            registry.push(&images.web_2, "shop/web", "2").await?;
        }
        Ok(())
    }

    /// Gives a docker-archive or OCI archive to its containerd.
    ///
    /// # Errors
    /// containerd refuses it.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let socket = self.dir().join("containerd/c.sock").display().to_string();
        let archive = archive.display().to_string();
        run(&["ctr", "--address", &socket, "--namespace", "k8s.io", "images", "import", &archive]).await.map(drop)
    }

    /// Applies what every member holds.
    pub(crate) async fn apply(&self, client: &Client) -> Result<()> {
        for object in manifests::all(self.plan) {
            cluster::apply(client, &object).await?;
        }
        Ok(())
    }

    /// Waits until its node, DNS and echo pods are there.
    pub(crate) async fn settle(&self, client: &Client) -> Result<()> {
        let node = self.plan.node_name();
        self.wait_for("kubelet", || cluster::node_ready(client, &node)).await?;
        // After a kill the API server still says what was true before: what counts is what runs and answers now.
        self.wait_for("kubelet", || self.alive(client)).await?;
        self.wait_for("kubelet", || cluster::deployed(client, "kube-system", "coredns")).await?;
        self.wait_for("kubelet", || cluster::deployed(client, ECHO, ECHO)).await?;
        self.wait_for("kube-proxy", || self.serving()).await
    }

    async fn serving(&self) -> Result<(), String> {
        let server = format!("@{}", self.plan.dns());
        let asked = ["dig", "+short", "+time=1", "+tries=1", &server, "echo.echo.svc.cluster.local"];
        let said = self.exec(&asked).await.map_err(|error| error.to_string())?;
        let address: std::net::Ipv4Addr = said.trim().parse().map_err(|_| format!("DNS said `{}`", said.trim()))?;
        let url = format!("http://{address}/");
        let asked = ["curl", "--silent", "--fail", "--max-time", "2", "--output", "/dev/null", &url];
        self.exec(&asked).await.map(drop).map_err(|error| error.to_string())
    }

    /// Waits for a condition that a part brings about; ends early with the part's last words if it died.
    async fn wait_for<T, F, Fut>(&self, part: &str, mut look: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, String>>,
    {
        let place = self.outside();
        let what = format!("member `{}`: {part}", self.plan.name());
        // Between fork and exec a process can look like nobody's: only several looks in a row make it dead.
        let missed = std::cell::Cell::new(0);
        let watched = wait(&what, READY, || {
            let seen = look();
            let (place, missed) = (&place, &missed);
            async move {
                let seen = match seen.await {
                    Ok(found) => return Ok(Ok(found)),
                    Err(seen) => seen,
                };
                missed.set(if place.find(part).is_empty() { missed.get() + 1 } else { 0 });
                if missed.get() < 8 { Err(seen) } else { Ok(Err(place.last_words(part))) }
            }
        });
        watched.await?.map_err(|said| Error::Refused(format!("{what} ended; it said last:\n{said}")))
    }
}
