//! What is no member's: the real API server for a hub in production mode, and `lab`, a member that is not Kubernetes.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use kube::Client;
use serde_json::json;

use crate::cluster;
use crate::error::{Error, Result};
use crate::home::{Home, write};
use crate::member::READY;
use crate::pki::Authority;
use crate::plan::{Block, CONSUL_DNS_PORT};
use crate::plane::{Plane, words};
use crate::process::Place;
use crate::programs::Programs;
use crate::shell::wait;

/// The name of the real API server's namespace and folder.
pub const HUB: &str = "hub";
/// The name of Consul's namespace and folder.
pub const LAB: &str = "lab";

/// The real API server: etcd, kube-apiserver, controller-manager; no node.
#[derive(Clone, Debug)]
pub struct Hub<'a> {
    pub(crate) home: &'a Home,
    pub(crate) programs: &'a Programs,
    pub(crate) block: Block,
}

impl Hub<'_> {
    fn place(&self) -> Place<'_> {
        Place { home: self.home, member: HUB, namespace: self.block.namespace(HUB), anchor: None }
    }

    /// Its address; the API server listens on port 6443 there.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.block.hub()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.member(HUB).join("pki/admin.kubeconfig")
    }

    /// A client as the administrator.
    ///
    /// # Errors
    /// The hub is not up.
    pub async fn kube(&self) -> Result<Client> {
        cluster::client(&self.kubeconfig()).await
    }

    /// A kubeconfig for a user of its own making, in at most one group; no rights but what bindings give.
    ///
    /// # Errors
    /// The disk.
    pub fn kubeconfig_of(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let pki = self.home.member(HUB).join("pki");
        let file = format!("user-{user}");
        Authority::load(&pki)?.user(&file, user, group, HUB, self.address())?;
        Ok(pki.join(format!("{file}.kubeconfig")))
    }

    pub(crate) fn write_files(&self) -> Result<()> {
        let authority = Authority::new(&self.home.member(HUB).join("pki"), HUB)?;
        let names = ["kubernetes", "kubernetes.default.svc", "localhost"];
        let first = Ipv4Addr::new(10, self.block.0, 250, 1);
        authority.server("apiserver", &names, &[self.address(), first, Ipv4Addr::LOCALHOST])?;
        for (file, user, group) in [
            ("admin", "admin", Some("system:masters")),
            ("apiserver-kubelet", "kube-apiserver-kubelet-client", None),
            ("manager", "system:kube-controller-manager", None),
        ] {
            authority.user(file, user, group, HUB, self.address())?;
        }
        Ok(())
    }

    /// Starts what does not run and waits until the API server is ready.
    pub(crate) async fn start(&self) -> Result<()> {
        let dir = self.home.member(HUB);
        let services = format!("10.{}.250.0/24", self.block.0);
        let plane = Plane { programs: self.programs, dir: &dir, address: self.address(), services, pods: None };
        let place = self.place();
        for (part, line) in [("etcd", plane.etcd()), ("kube-apiserver", plane.apiserver())] {
            if place.find(part).is_empty() {
                place.start(part, &line, &[]).await?;
            }
        }
        let client = self.kube().await?;
        wait("hub: kube-apiserver", READY, || cluster::ready(&client)).await?;
        if place.find("kube-controller-manager").is_empty() {
            place.start("kube-controller-manager", &plane.manager(), &[]).await?;
        }
        Ok(())
    }
}

/// A member that is not Kubernetes: Consul in dev mode with the service `web`, which an echo backend serves.
#[derive(Clone, Debug)]
pub struct Lab<'a> {
    pub(crate) home: &'a Home,
    pub(crate) programs: &'a Programs,
    pub(crate) block: Block,
}

impl Lab<'_> {
    fn place(&self) -> Place<'_> {
        Place { home: self.home, member: LAB, namespace: self.block.namespace(LAB), anchor: None }
    }

    /// Its address: HTTP on port 8500, the backend of `web` on 8080.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.block.lab()
    }

    /// Host and port of Consul's DNS.
    #[must_use]
    pub fn dns(&self) -> String {
        format!("{}:{CONSUL_DNS_PORT}", self.address())
    }

    /// Host and port of Consul's HTTP API.
    #[must_use]
    pub fn http(&self) -> String {
        format!("{}:8500", self.address())
    }

    /// Starts what does not run and waits until Consul names `web`.
    pub(crate) async fn start(&self) -> Result<()> {
        let (dir, place) = (self.home.member(LAB), self.place());
        let web = json!({"service": {
            "name": "web", "address": self.address(), "port": 8080,
            "check": {"http": format!("http://{}:8080/", self.address()), "interval": "1s"},
        }});
        write(&dir.join("consul/web.json"), web.to_string())?;
        if place.find("echo").is_empty() {
            let variables = [("CLUSTER", LAB.to_owned()), ("POD", "web-1".to_owned()), ("VERSION", "1".to_owned())];
            place.start("echo", &[self.programs.path("echo").display().to_string()], &variables).await?;
        }
        if place.find("consul").is_empty() {
            let line = words(
                &self.programs.path("consul").display().to_string(),
                &[
                    "agent".into(),
                    "-dev".into(),
                    "-node=lab-1".into(),
                    format!("-bind={}", self.address()),
                    "-client=0.0.0.0".into(),
                    format!("-dns-port={CONSUL_DNS_PORT}"),
                    format!("-config-dir={}", dir.join("consul").display()),
                    "-log-level=warn".into(),
                ],
            );
            place.start("consul", &line, &[]).await?;
        }
        let server = format!("@{}", self.address());
        let port = CONSUL_DNS_PORT.to_string();
        wait("lab: consul names web", READY, || async {
            let asked = ["dig", "+short", "+time=1", "+tries=1", &server, "-p", &port, "web.service.consul"];
            let said = crate::shell::run(&asked).await.map_err(|error| error.to_string())?;
            if said.trim() == self.address().to_string() { Ok(()) } else { Err(format!("dig said `{}`", said.trim())) }
        })
        .await
        .map_err(|error| Error::Refused(format!("{error}; consul said last:\n{}", place.last_words("consul"))))
    }
}
