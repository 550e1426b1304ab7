//! A demo member as its neighbours see it: workloads become pods that answer, names resolve, images gate readiness, cuts cut.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use atoll_demo::{Member, MemberSpec, registry::images};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, ResourceExt, api::Patch};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(10);

/// A member that ends with the test; tests run at once, so each has a network of its own.
struct Fixture {
    member: Member,
    shutdown: CancellationToken,
}

impl Fixture {
    async fn start(index: u8, change: impl FnOnce(&mut MemberSpec)) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut spec = MemberSpec::new("dev", index);
        change(&mut spec);
        let shutdown = CancellationToken::new();
        let member = Member::start(spec, &shutdown).await.unwrap();
        let shop: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
        Api::all(member.client()).create(&Default::default(), &shop).await.unwrap();
        Self { member, shutdown }
    }

    async fn deploy(&self, replicas: i32, image: &str, change: impl FnOnce(&mut Value)) {
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
                        "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}},
                    }]},
                },
            },
        });
        change(&mut deployment);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 18080, "targetPort": "http"}]},
        });
        let params = kube::api::PatchParams::apply("test").force();
        let client = self.member.client();
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shop");
        deployments.patch("web", &params, &Patch::Apply(&deployment)).await.unwrap();
        let services: Api<Service> = Api::namespaced(client, "shop");
        services.patch("web", &params, &Patch::Apply(&service)).await.unwrap();
    }

    /// Waits until the Deployment's status is as `want` says.
    async fn status(&self, what: &str, want: impl Fn(&Value) -> bool) -> Value {
        let api: Api<Deployment> = Api::namespaced(self.member.client(), "shop");
        eventually(what, async || {
            let deployment = json!(api.get("web").await.unwrap());
            let current = deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"];
            if current && want(&deployment["status"]) {
                Ok(deployment["status"].clone())
            } else {
                Err(deployment["status"].to_string())
            }
        })
        .await
    }

    async fn pods(&self) -> Vec<Pod> {
        Api::namespaced(self.member.client(), "shop").list(&Default::default()).await.unwrap().items
    }

    async fn ask(&self, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        socket.send_to(&query.to_vec().unwrap(), self.member.dns()).await.unwrap();
        let mut packet = [0; 2048];
        let (len, _) = tokio::time::timeout(LONG, socket.recv_from(&mut packet)).await.unwrap().unwrap();
        let answer = Message::from_vec(&packet[..len]).unwrap();
        (answer.metadata.response_code, answer.answers.iter().map(|r| r.data.to_string()).collect())
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.member.closed()).await.expect("a member ends when it is told to");
    }
}

/// Asks again until the answer is `Ok`; says what it last was if that takes too long.
async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Result<T, String>) -> T {
    let until = tokio::time::Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(last) if tokio::time::Instant::now() > until => panic!("{what}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn get(address: SocketAddr) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let body = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no body"))?.1;
    serde_json::from_str(body).map_err(std::io::Error::other)
}

fn ready(n: i32) -> impl Fn(&Value) -> bool {
    move |s| s["readyReplicas"] == n && s["updatedReplicas"] == n && s["replicas"] == n
}

#[tokio::test]
async fn a_deployment_becomes_pods_that_answer_by_address_service_and_name() {
    let f = Fixture::start(30, |_| ()).await;
    f.deploy(3, "shop/web:1", |_| ()).await;
    f.status("three ready pods", ready(3)).await;
    for pod in f.pods().await {
        let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
        let told = get(format!("{ip}:8080").parse().unwrap()).await.unwrap();
        assert_eq!((&told["cluster"], &told["pod"]), (&"dev".into(), &pod.name_any().into()));
        let image = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].image_id;
        assert!(image.starts_with("shop/web:1@sha256:"), "{image}");
    }
    let services: Api<Service> = Api::namespaced(f.member.client(), "shop");
    let ip = services.get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    assert!(f.member.network().contains(ip.parse().unwrap()), "{ip}");
    assert_eq!(get(format!("{ip}:18080").parse().unwrap()).await.unwrap()["cluster"], "dev");
    assert_eq!(f.ask("web.shop.svc.cluster.local.", RecordType::A).await, (ResponseCode::NoError, vec![ip]));
    assert_eq!(f.ask("web.none.svc.cluster.local.", RecordType::A).await.0, ResponseCode::NXDomain);

    let slices: Api<EndpointSlice> = Api::namespaced(f.member.client(), "shop");
    let slice = slices.list(&Default::default()).await.unwrap().items.pop().unwrap();
    assert_eq!((slice.endpoints.len(), slice.ports.unwrap()[0].port), (3, Some(8080)));

    f.deploy(1, "shop/web:1", |_| ()).await;
    f.status("one pod", ready(1)).await;
    assert_eq!(f.pods().await.len(), 1);
    f.end().await;
}

#[tokio::test]
async fn a_pod_waits_for_its_image_and_runs_once_it_is_there() {
    let f = Fixture::start(31, |_| ()).await;
    f.deploy(1, "shop/web:2", |_| ()).await;
    let message = eventually("a pod that says what it waits for", async || {
        let pods = json!(f.pods().await);
        let waiting = pods.pointer("/0/status/containerStatuses/0/state/waiting").cloned().unwrap_or_default();
        let reasons = ["ErrImagePull", "ImagePullBackOff"];
        let told = reasons.iter().any(|r| waiting["reason"] == *r) && pods[0]["status"]["phase"] == "Pending";
        if told { Ok(waiting["message"].as_str().unwrap().to_owned()) } else { Err(pods.to_string()) }
    })
    .await;
    assert!(message.contains("shop/web:2") && message.contains("not found"), "{message}");
    images::seed(f.member.images(), "shop/web", "2");
    f.status("the pod runs", ready(1)).await;
    f.end().await;
}

#[tokio::test]
async fn a_new_image_rolls_over_and_a_full_member_says_so() {
    let f = Fixture::start(32, |spec| {
        spec.images.push(("shop/web".into(), "2".into()));
        (spec.nodes, spec.cpu) = (1, "2".into());
    })
    .await;
    f.deploy(3, "shop/web:1", |_| ()).await;
    f.status("three pods", ready(3)).await;
    f.deploy(3, "shop/web:2", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": "2"}])
    })
    .await;
    f.status("three new pods", ready(3)).await;
    for pod in f.pods().await {
        let ip = pod.status.unwrap().pod_ip.unwrap();
        assert_eq!(get(format!("{ip}:8080").parse().unwrap()).await.unwrap()["version"], "2");
    }
    // two cores hold four pods of half a core
    f.deploy(6, "shop/web:2", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": "2"}])
    })
    .await;
    f.status("four of six", |s| s["readyReplicas"] == 4 && s["replicas"] == 6).await;
    eventually("two pods that say why they wait", async || {
        let text = json!(f.pods().await).to_string();
        let n = text.matches("0/1 nodes are available: 1 Insufficient cpu.").count();
        if n == 2 { Ok(()) } else { Err(text) }
    })
    .await;
    f.end().await;
}

#[tokio::test]
async fn a_broken_member_answers_nothing_and_a_healed_one_is_where_it_was() {
    let f = Fixture::start(33, |_| ()).await;
    f.deploy(1, "shop/web:1", |_| ()).await;
    f.status("a pod", ready(1)).await;
    let pod: SocketAddr =
        format!("{}:8080", f.pods().await[0].status.as_ref().unwrap().pod_ip.as_ref().unwrap()).parse().unwrap();
    let api: SocketAddr = f.member.api_url().trim_start_matches("https://").parse().unwrap();
    let registry: SocketAddr = f.member.registry().0.trim_start_matches("http://").parse().unwrap();
    let soon = Duration::from_millis(500);

    f.member.break_it();
    assert!(*f.member.broken().borrow());
    for address in [pod, api, registry, f.member.dns()] {
        // a first connect may still find a place in the kernel's queue; nobody answers it
        let answered = tokio::time::timeout(soon, get(address)).await;
        assert!(answered.is_err(), "{address} answered: {answered:?}");
    }
    assert!(f.member.connect().connect("127.0.0.1", 1).await.is_err_and(|e| e.kind() == std::io::ErrorKind::TimedOut));

    f.member.heal();
    eventually("the pod answers again", async || get(pod).await.map_err(|e| e.to_string())).await;
    assert_eq!(f.ask("web.shop.svc.cluster.local.", RecordType::A).await.0, ResponseCode::NoError);
    f.end().await;
}

#[tokio::test]
async fn two_members_on_the_same_addresses_take_the_next_free_ports() {
    let (a, b) = (Fixture::start(34, |_| ()).await, Fixture::start(34, |_| ()).await);
    assert_ne!(a.member.dns(), b.member.dns());
    assert_ne!(a.member.api_url(), b.member.api_url());
    for f in [&a, &b] {
        f.deploy(1, "shop/web:1", |_| ()).await;
        f.status("a pod", ready(1)).await;
    }
    let ip = |pods: Vec<Pod>| pods[0].status.as_ref().unwrap().pod_ip.clone();
    assert_ne!(ip(a.pods().await), ip(b.pods().await));
    a.end().await;
    b.end().await;
}
