//! The command lines of a control plane: etcd, kube-apiserver, controller-manager, scheduler.
//! In: addresses and folders. Out: words. Never starts anything.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::plan::API_PORT;
use crate::programs::Programs;

/// What a control plane needs to know of itself.
#[derive(Clone, Debug)]
pub(crate) struct Plane<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) dir: &'a Path,
    pub(crate) address: Ipv4Addr,
    pub(crate) services: String,
    /// The range of pods, where there are nodes.
    pub(crate) pods: Option<String>,
}

impl Plane<'_> {
    /// etcd on the namespace's loopback. A killed process loses nothing without fsync; a dead machine ends the testbed.
    pub(crate) fn etcd(&self) -> Vec<String> {
        let dir = self.dir.display();
        words(
            "/usr/bin/etcd",
            &[
                format!("--data-dir={dir}/etcd"),
                "--name=one".into(),
                "--listen-client-urls=http://127.0.0.1:2379".into(),
                "--advertise-client-urls=http://127.0.0.1:2379".into(),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
                "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
                "--initial-cluster=one=http://127.0.0.1:2380".into(),
                "--unsafe-no-fsync".into(),
                "--logger=zap".into(),
                "--log-level=warn".into(),
            ],
        )
    }

    /// The API server.
    pub(crate) fn apiserver(&self) -> Vec<String> {
        let pki = self.dir.join("pki");
        let pki = pki.display();
        words(
            &self.program("kube-apiserver"),
            &[
                "--etcd-servers=http://127.0.0.1:2379".into(),
                format!("--advertise-address={}", self.address),
                format!("--secure-port={API_PORT}"),
                format!("--service-cluster-ip-range={}", self.services),
                format!("--client-ca-file={pki}/ca.crt"),
                format!("--tls-cert-file={pki}/apiserver.crt"),
                format!("--tls-private-key-file={pki}/apiserver.key"),
                format!("--service-account-key-file={pki}/sa.pub"),
                format!("--service-account-signing-key-file={pki}/sa.key"),
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
                format!("--kubelet-client-certificate={pki}/apiserver-kubelet.crt"),
                format!("--kubelet-client-key={pki}/apiserver-kubelet.key"),
                // Else logs and exec look the node's name up in DNS.
                "--kubelet-preferred-address-types=InternalIP".into(),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction".into(),
                "--allow-privileged=true".into(),
                "--profiling=false".into(),
            ],
        )
    }

    /// The controllers.
    pub(crate) fn manager(&self) -> Vec<String> {
        let pki = self.dir.join("pki");
        let pki = pki.display();
        let mut arguments = vec![
            format!("--kubeconfig={pki}/manager.kubeconfig"),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            format!("--root-ca-file={pki}/ca.crt"),
            format!("--service-account-private-key-file={pki}/sa.key"),
            format!("--cluster-signing-cert-file={pki}/ca.crt"),
            format!("--cluster-signing-key-file={pki}/ca.key"),
            format!("--service-cluster-ip-range={}", self.services),
            "--bind-address=127.0.0.1".into(),
            "--kube-api-qps=100".into(),
            "--kube-api-burst=200".into(),
        ];
        if let Some(pods) = &self.pods {
            arguments.extend([
                "--allocate-node-cidrs=true".into(),
                format!("--cluster-cidr={pods}"),
                "--node-cidr-mask-size=24".into(),
            ]);
        }
        words(&self.program("kube-controller-manager"), &arguments)
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> Vec<String> {
        let pki = self.dir.join("pki");
        words(
            &self.program("kube-scheduler"),
            &[
                format!("--kubeconfig={}/scheduler.kubeconfig", pki.display()),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
            ],
        )
    }

    /// A program of the cache.
    pub(crate) fn program(&self, name: &str) -> String {
        self.programs.path(name).display().to_string()
    }
}

/// A command line.
pub(crate) fn words(program: &str, arguments: &[String]) -> Vec<String> {
    std::iter::once(program.to_owned()).chain(arguments.iter().cloned()).collect()
}
