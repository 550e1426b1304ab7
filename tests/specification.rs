//! A member's names as the Kubernetes DNS specification 1.1 has them: asked at real CoreDNS and at Atoll's DNS server, compared record by
//! record. What CoreDNS says, with its own domain replaced, is what Atoll must say, and what the specification says is what it must be.
//!
//! ```text
//!   testbed (one cluster) ── objects ──► CoreDNS ◄── web.spec.svc.cluster.local ── dig ─┐
//!                                           ▲                                           ├─ the same?
//!                                           └── Atoll ◄── web.spec.svc.prod-eu.atoll.internal
//! ```
//!
//! The names of `clusterset.local` are compared in the same way, with a CoreDNS that serves them: [`clusterset`].
//!
//! Needs root and the testbed's programs: `cargo test --test specification -- --ignored`, a step of `./check`.
#![allow(clippy::print_stdout, reason = "what was compared is said on the standard output")]
#![allow(clippy::unwrap_used, reason = "a cluster that can't be set up ends the test")]

#[path = "specification/clusterset.rs"]
mod clusterset;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_api::topology::{Topology, Version};
use atoll_dns::{Config, Encrypted, Files, Resources};
use atoll_reach::{Dialer, Listen as _, RelayTable, Route, Routes, System};
use atoll_testbed::{MemberSpec, Options, Testbed};
use atoll_wire::follow::{Line, Report, Snapshot};
use futures::FutureExt as _;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const NATIVE: &str = "cluster.local.";
const OURS: &str = "prod-eu.atoll.internal.";

/// A question below a domain, or of a reverse zone, and what a specification says: a code, and how many answers.
struct Case {
    section: &'static str,
    name: &'static str,
    kind: RecordType,
    code: &'static str,
    answers: usize,
    /// What CoreDNS says instead, and why ours is right.
    but: Option<(&'static str, &'static str)>,
}

const fn case(section: &'static str, name: &'static str, kind: RecordType, code: &'static str, answers: usize) -> Case {
    Case { section, name, kind, code, answers, but: None }
}

/// Section numbers of the Kubernetes DNS specification 1.1.
const CASES: &[Case] = &[
    case("2.2 schema version", "dns-version", RecordType::TXT, "NoError", 1),
    case("2.3.1 A of a ClusterIP service", "web.spec.svc", RecordType::A, "NoError", 1),
    case("2.3.1 no AAAA of an IPv4 service", "web.spec.svc", RecordType::AAAA, "NoError", 0),
    case("2.3.2 SRV of a named port", "_http._tcp.web.spec.svc", RecordType::SRV, "NoError", 1),
    case("2.3.2 SRV of a named UDP port", "_dns._udp.web.spec.svc", RecordType::SRV, "NoError", 1),
    case("2.3.2 no such port", "_none._tcp.web.spec.svc", RecordType::SRV, "NXDomain", 0),
    case("2.3.3 PTR of a cluster IP", "@web", RecordType::PTR, "NoError", 1),
    case("2.4.1 A of a headless service: ready endpoints", "db.spec.svc", RecordType::A, "NoError", 3),
    case("2.4.1 AAAA of a headless service", "six.spec.svc", RecordType::AAAA, "NoError", 2),
    case("2.4.1 host name", "db-0.db.spec.svc", RecordType::A, "NoError", 1),
    case("2.4.1 host name of an IPv6 endpoint", "six-0.six.spec.svc", RecordType::AAAA, "NoError", 1),
    case("2.4.1 an endpoint without host name", "10-66-0-3.db.spec.svc", RecordType::A, "NoError", 1),
    case("2.4.1 an endpoint that is not ready", "db-9.db.spec.svc", RecordType::A, "NXDomain", 0),
    case("2.4.1 an endpoint of publishNotReadyAddresses", "all.spec.svc", RecordType::A, "NoError", 1),
    case("2.4.2 SRV of a headless service", "_sql._tcp.db.spec.svc", RecordType::SRV, "NoError", 3),
    case("2.4.2 SRV of an IPv6 headless service", "_sql._tcp.six.spec.svc", RecordType::SRV, "NoError", 2),
    case("2.4.3 PTR of an endpoint with a host name", "1.0.66.10.in-addr.arpa.", RecordType::PTR, "NoError", 1),
    case("2.5 CNAME of an ExternalName service", "out.spec.svc", RecordType::CNAME, "NoError", 1),
    case("2.5 A of an ExternalName service", "out.spec.svc", RecordType::A, "NoError", 1),
    case("pods by address", "10-66-0-77.spec.pod", RecordType::A, "NoError", 1),
    case("a service that is not there", "none.spec.svc", RecordType::A, "NXDomain", 0),
    case("a namespace that is not there", "web.none.svc", RecordType::A, "NXDomain", 0),
    case("another type of a name that is there", "web.spec.svc", RecordType::MX, "NoError", 0),
    case("letters of both cases", "WEB.Spec.SVC", RecordType::A, "NoError", 1),
];

#[tokio::test]
#[ignore = "needs root: cargo test --test specification -- --ignored"]
async fn what_coredns_says_is_what_we_say_in_our_names() {
    let members = MemberSpec::parse_list("prod-eu").unwrap();
    let testbed = Testbed::up(Options { members, hub: false, lab: false, keep: false }).await.unwrap();
    // A failed assertion shall not leave a cluster behind.
    let told = AssertUnwindSafe(compare(&testbed)).catch_unwind().await;
    testbed.down().await.unwrap();
    told.unwrap_or_else(|failed| std::panic::resume_unwind(failed));
}

async fn compare(testbed: &Testbed) {
    let member = testbed.member("prod-eu").unwrap();
    let coredns = SocketAddr::from((member.plan().dns(), 53));
    let kubectl = async |words: &[&str], input: &str| {
        let mut command = Command::new(testbed.kubectl());
        command.arg("--kubeconfig").arg(member.kubeconfig()).args(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl runs");
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let said = child.wait_with_output().await.unwrap();
        assert!(said.status.success(), "kubectl {words:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    kubectl(&["apply", "-f", "-"], &objects().to_string()).await;
    let address = kubectl(&["get", "service", "-n", "spec", "web", "-o", "jsonpath={.spec.clusterIP}"], "").await;
    let web: std::net::IpAddr = address.trim().parse().expect("an address");
    let (services, pods) = (vec![member.plan().services()], vec![member.plan().pods(), "10.66.0.0/24".to_owned()]);
    let facts = json!({
        "name": "prod-eu", "ready": true, "dnsReady": true, "dns": {"servers": [coredns.to_string()]},
        "spec": {"environment": "prod", "region": "eu-central"}, "cidrs": {"services": services, "pods": pods},
    });
    let shutdown = CancellationToken::new();
    let (atoll, serving) = serve(vec![("cluster/prod-eu".to_owned(), facts)], shutdown.clone()).await;
    // CoreDNS watches: once it has the last of the objects it has them all.
    let end = Instant::now() + Duration::from_secs(30);
    while ask(coredns, "out.spec.svc.cluster.local.", RecordType::CNAME).await.answers.is_empty() {
        assert!(Instant::now() < end, "CoreDNS does not see the objects");
        sleep(Duration::from_millis(100)).await;
    }
    for case in CASES {
        let name = match case.name {
            "@web" => Name::from(web).to_ascii(),
            name => name.to_owned(),
        };
        let (native, ours) = if name.ends_with('.') {
            (name.clone(), name)
        } else {
            (format!("{name}.{NATIVE}"), format!("{name}.{OURS}"))
        };
        let said = ask(coredns, &native, case.kind).await;
        let got = ask(atoll, &ours, case.kind).await;
        let what = format!("{}: {ours} {}", case.section, case.kind);
        assert_eq!(format!("{:?}", said.metadata.response_code), case.code, "CoreDNS itself, {what}: {said:?}");
        assert_eq!(said.answers.len(), case.answers, "CoreDNS itself, {what}: {said:?}");
        assert_eq!(got.metadata.response_code, said.metadata.response_code, "{what}: {got:?}");
        assert_eq!(texts(&got.answers), texts(&said.answers), "{what}");
        assert_eq!(texts(&got.additionals), texts(&said.additionals), "{what}");
        assert_eq!(soa(&got), soa(&said), "{what}");
        assert!(got.answers.iter().all(|r| r.ttl <= 30), "{what}: {got:?}");
        println!("same  {what}  {} {}", case.code, texts(&got.answers).join("; "));
    }
    println!("{} questions, no difference", CASES.len());
    shutdown.cancel();
    serving.await.expect("it ends well");
    clusterset::compare(testbed, &member.kubeconfig(), kubectl).await;
}

/// Atoll's DNS server with what a hub tells, on any port of loopback; members are reached directly.
async fn serve(told: Vec<(String, Value)>, shutdown: CancellationToken) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let mut facts = Facts::default();
    facts.put("settings", &json!({"apex": "atoll.internal", "defaultSet": "prod"}));
    told.iter().for_each(|(key, value)| assert!(facts.put(key.clone(), value)));
    let topology = Topology::from_facts(Version { epoch: 1, generation: 1 }, &facts);
    assert!(topology.unread.is_empty(), "{:?}", topology.unread);
    let (system, routes) = (System::default(), Routes::default());
    routes.set(topology.clusters.keys().map(|name| (name.as_str().to_owned(), Route::Direct)).collect());
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = udp.local_addr().unwrap();
    let (started, start) = oneshot::channel();
    let resources = Resources {
        topology: watch::channel(Snapshot { topology: Arc::new(topology), heard: Some(Instant::now()) }).1,
        dialer: Dialer::new(Arc::new(system.clone()), RelayTable::default(), routes),
        report: watch::channel(Report::default()).0,
        line: Line::dead(),
        connect: Arc::new(system.clone()),
        listen: Arc::new(system.clone()),
        udp: vec![udp],
        tcp: system.tcp(at).await.expect("a port that is free for UDP and TCP"),
        encrypted: Encrypted::default(),
        cookies: None,
        files: Files::default(),
        taps: Vec::new(),
        metrics: prometheus::Registry::new(),
        dir: None,
        started: Some(started),
    };
    let run = atoll_dns::run(Config::default(), resources, shutdown);
    let serving = tokio::spawn(async move { run.await.expect("the server starts") });
    assert!(start.await.is_ok(), "the server starts");
    (at, serving)
}

/// A query with EDNS, as resolvers send it.
fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut packet = vec![0; 4096];
    for _ in 0..5 {
        socket.send(&query(name, kind).to_vec().unwrap()).await.unwrap();
        if let Ok(Ok(len)) = timeout(Duration::from_secs(2), socket.recv(&mut packet)).await {
            return Message::from_vec(&packet[..len]).expect("a DNS message");
        }
    }
    panic!("{server} does not answer for {name}");
}

/// Records in our names, in order of the text.
fn texts(records: &[Record]) -> Vec<String> {
    let text = |r: &Record| format!("{} {} {}", r.name.to_lowercase(), r.record_type(), r.data);
    let mut texts: Vec<String> = records.iter().map(|r| text(r).replace(NATIVE, OURS)).collect();
    texts.sort();
    texts
}

/// The SOA of a negative answer, in our names.
fn soa(message: &Message) -> Vec<String> {
    let soa = message.authorities.iter().filter(|r| r.record_type() == RecordType::SOA);
    texts(&soa.cloned().collect::<Vec<_>>())
}

/// Services without selectors, whose endpoints are written by hand: no pod has to run.
fn objects() -> Value {
    let meta = |name: &str| json!({"name": name, "namespace": "spec"});
    let service =
        |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name), "spec": spec});
    let sql = json!([{"name": "sql", "protocol": "TCP", "port": 5432}]);
    let headless = json!({"clusterIP": "None", "ports": sql});
    let published = json!({"clusterIP": "None", "ports": sql, "publishNotReadyAddresses": true});
    let slice = |service: &str, name: &str, kind: &str, endpoints: Value| {
        let mut meta = meta(name);
        meta["labels"] = json!({"kubernetes.io/service-name": service});
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
            "addressType": kind, "ports": sql, "endpoints": endpoints})
    };
    let end = |address: &str, host: Option<&str>, ready: bool| {
        let mut end = json!({"addresses": [address], "conditions": {"ready": ready}});
        if let Some(host) = host {
            end["hostname"] = json!(host);
        }
        end
    };
    let db = json!([
        end("10.66.0.1", Some("db-0"), true),
        end("10.66.0.2", Some("db-1"), true),
        end("10.66.0.3", None, true),
        end("10.66.0.9", Some("db-9"), false),
    ]);
    let six = json!([end("fd66::1", Some("six-0"), true), end("fd66::2", None, true)]);
    let ports = json!([
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080},
        {"name": "dns", "protocol": "UDP", "port": 53},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "spec"}},
        service("web", json!({"ports": ports})),
        service("db", headless.clone()),
        slice("db", "db-1", "IPv4", db),
        service("six", headless),
        slice("six", "six-1", "IPv6", six),
        service("all", published),
        slice("all", "all-1", "IPv4", json!([end("10.66.0.20", None, true)])),
        service("out", json!({"type": "ExternalName", "externalName": "www.example.org"})),
    ]})
}
