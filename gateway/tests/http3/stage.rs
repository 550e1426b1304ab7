//! A gateway that serves `a.test` by HTTPS before one pod.

use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::backend::Pod;
use crate::peer::Peer;
use crate::quic::{Caller, Http3, LONG};
use crate::world::{Made, World, gateway, import, listener, route, topology};

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) pod: Pod,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// A certificate that signs itself, and its Secret in `infra`.
pub(crate) fn certificate(secret: &str, host: &str) -> (CertificateDer<'static>, Value) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let object = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": secret, "namespace": "infra"},
        "data": {"tls.crt": encode(&certificate.pem()), "tls.key": encode(&key.serialize_pem())}});
    (certificate.der().clone(), object)
}

pub(crate) fn https(name: &str, host: &str, secret: &str) -> Value {
    let mut listener = listener(name, 443, "HTTPS");
    listener["hostname"] = json!(host);
    listener["tls"] = json!({"certificateRefs": [{"name": secret}]});
    listener
}

impl Stage {
    /// A gateway, and a pod on `ip`.
    pub(crate) async fn set(ip: &str, made: Made<'_>) -> Self {
        let pod = Pod::start("web", ip).await;
        Self::before(pod, made).await
    }

    /// The same before that pod, whether it answers or not.
    pub(crate) async fn before(pod: Pod, made: Made<'_>) -> Self {
        let world = World::make(made).await;
        world.publish(topology(&[("eu", &[&pod])]), true);
        world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
        let (root, secret) = certificate("a", "a.test");
        world.apply(secret).await;
        world.apply(gateway("main", json!([https("a", "a.test", "a")]))).await;
        world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
        let stage = Self { world, pod, roots: vec![root] };
        stage.until_open().await;
        stage
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new("a.test", &self.roots)
    }

    /// Waits until HTTP/3 is served.
    pub(crate) async fn until_open(&self) {
        let began = Instant::now();
        while let Err(error) = self.caller().connect(self.world.https).await {
            assert!(began.elapsed() < LONG, "{error}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn open(&self) -> Http3 {
        self.caller().open(self.world.https).await.unwrap()
    }

    pub(crate) async fn peer(&self) -> Peer {
        Peer::new(self.caller().connect(self.world.https).await.unwrap()).await
    }
}

/// KiB of memory that this process has.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
