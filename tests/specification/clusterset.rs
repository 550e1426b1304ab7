//! `clusterset.local` as the multi-cluster DNS specification 1.0.0 (KEP-1645) has it: the same services told to a real CoreDNS (its option
//! `multicluster`) as ServiceImports and EndpointSlices, and to Atoll as its hub tells them; asked the same, compared record by record.
//!
//! In: a testbed with one cluster. What CoreDNS does otherwise than the specification or RFC 8020 is said beside the row.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use atoll_testbed::Testbed;
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Case, ask, case, serve};

const ZONE: &str = "clusterset.local.";
const VIP: &str = "10.77.0.1";

impl Case {
    const fn but(self, code: &'static str, why: &'static str) -> Self {
        Self { but: Some((code, why)), ..self }
    }
}

const CASES: &[Case] = &[
    case("2.2 schema version", "dns-version", RecordType::TXT, "NoError", 1)
        .but("NoError", "CoreDNS tells the version of the specification for one cluster, 1.1.0"),
    case("2.3.1 A of a service with a clusterset IP", "web.mcs.svc", RecordType::A, "NoError", 1),
    case("2.3.1 no AAAA of an IPv4 service", "web.mcs.svc", RecordType::AAAA, "NoError", 0),
    case("2.3.2 SRV of a named port", "_http._tcp.web.mcs.svc", RecordType::SRV, "NoError", 1),
    case("2.3.2 SRV of a named UDP port", "_dns._udp.web.mcs.svc", RecordType::SRV, "NoError", 1),
    case("2.3.2 no such port", "_none._tcp.web.mcs.svc", RecordType::SRV, "NXDomain", 0),
    case("2.3.2 no such protocol", "_http._udp.web.mcs.svc", RecordType::SRV, "NXDomain", 0),
    case("2.3.4 no record of one cluster", "east.web.mcs.svc", RecordType::A, "NXDomain", 0),
    case("2.4.1 A of a headless service: every cluster's ready endpoints", "db.mcs.svc", RecordType::A, "NoError", 4),
    case("2.4.1 no AAAA of an IPv4 service", "db.mcs.svc", RecordType::AAAA, "NoError", 0),
    case("2.4.1 AAAA of a headless service", "six.mcs.svc", RecordType::AAAA, "NoError", 2),
    case("2.4.1 a host of a cluster", "db-0.east.db.mcs.svc", RecordType::A, "NoError", 1),
    case("2.4.1 the same host name in another", "db-0.west.db.mcs.svc", RecordType::A, "NoError", 2),
    case("2.4.1 a host with IPv6", "six-0.east.six.mcs.svc", RecordType::AAAA, "NoError", 1),
    case("2.4.1 no address of the other family", "six-0.east.six.mcs.svc", RecordType::A, "NoError", 0),
    case("2.1 an endpoint without host name", "10-66-1-3.east.db.mcs.svc", RecordType::A, "NoError", 1),
    case("2.4.1 an endpoint that is not ready", "db-9.east.db.mcs.svc", RecordType::A, "NXDomain", 0),
    case("2.4.1 a host of another cluster", "db-1.west.db.mcs.svc", RecordType::A, "NXDomain", 0),
    case("2.4.1 a cluster that does not offer it", "db-0.north.db.mcs.svc", RecordType::A, "NXDomain", 0),
    case("2.4.1 no ready endpoint", "none.mcs.svc", RecordType::A, "NXDomain", 0),
    case("2.4.2 SRV of a headless service", "_sql._tcp.db.mcs.svc", RecordType::SRV, "NoError", 3),
    case("2.4.2 SRV of an IPv6 headless service", "_sql._tcp.six.mcs.svc", RecordType::SRV, "NoError", 2),
    case("2.4.4 no record of one cluster", "east.db.mcs.svc", RecordType::A, "NoError", 0)
        .but("NXDomain", "RFC 8020 §2: names below it are there, so it is, without data"),
    case("a service that nobody exports", "other.mcs.svc", RecordType::A, "NXDomain", 0),
    case("a namespace that is not there", "web.other.svc", RecordType::A, "NXDomain", 0),
    case("another type of a name that is there", "web.mcs.svc", RecordType::MX, "NoError", 0),
    case("an inner name", "svc", RecordType::A, "NoError", 0),
    case("letters of both cases", "WEB.Mcs.SVC", RecordType::A, "NoError", 1),
];

/// Compares; `member` is the kubeconfig of the testbed's cluster.
pub(super) async fn compare(testbed: &Testbed, member: &Path, kubectl: impl AsyncFn(&[&str], &str) -> String) {
    kubectl(&["apply", "-f", "-"], &kind().to_string()).await;
    let served = ["wait", "--for=condition=Established", "crd/serviceimports.multicluster.x-k8s.io", "--timeout=30s"];
    kubectl(&served, "").await;
    kubectl(&["apply", "-f", "-"], &objects().to_string()).await;
    let dir = tempfile::tempdir().unwrap();
    let (coredns, _process) = coredns(testbed, member, dir.path());
    let shutdown = CancellationToken::new();
    let (atoll, serving) = serve(facts(), shutdown.clone()).await;
    let end = Instant::now() + Duration::from_secs(30);
    while !knows(coredns).await {
        assert!(Instant::now() < end, "CoreDNS: {}", std::fs::read_to_string(dir.path().join("log")).unwrap());
        sleep(Duration::from_millis(200)).await;
    }
    for case in CASES {
        let name = format!("{}.{ZONE}", case.name);
        let (said, got) = (ask(coredns, &name, case.kind).await, ask(atoll, &name, case.kind).await);
        let what = format!("{}: {name} {}", case.section, case.kind);
        assert_eq!(code(&got), case.code, "{what}: {got:?}");
        assert_eq!(got.answers.len(), case.answers, "{what}: {got:?}");
        if let Some((theirs, why)) = case.but {
            assert_eq!(code(&said), theirs, "CoreDNS, {what}: {said:?}");
            println!("ours  {what}  {}: {why}", case.code);
            continue;
        }
        assert_eq!(code(&said), case.code, "CoreDNS itself, {what}: {said:?}");
        assert_eq!(texts(&got.answers), texts(&said.answers), "{what}");
        assert_eq!(texts(&got.additionals), texts(&said.additionals), "{what}");
        let negative =
            |message: &Message| message.authorities.iter().filter(|r| r.record_type() == RecordType::SOA).count();
        assert_eq!(negative(&got), negative(&said), "{what}");
        println!("same  {what}  {} {}", case.code, texts(&got.answers).join("; "));
    }
    println!("{} questions of clusterset.local, no difference but those that are said", CASES.len());
    shutdown.cancel();
    serving.await.expect("it ends well");
}

fn code(message: &Message) -> String {
    format!("{:?}", message.metadata.response_code)
}

/// Records in order of the text; priorities and weights "are not prescribed by this specification".
fn texts(records: &[Record]) -> Vec<String> {
    let data = |r: &Record| match &r.data {
        RData::SRV(srv) => format!("{} {}", srv.port, srv.target),
        other => other.to_string(),
    };
    let mut texts: Vec<String> =
        records.iter().map(|r| format!("{} {} {}", r.name.to_lowercase(), r.record_type(), data(r))).collect();
    texts.sort();
    texts
}

/// Whether it has all that it was told: the last of it is the IPv6 slice.
async fn knows(coredns: SocketAddr) -> bool {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let packet = super::query(&format!("six.mcs.svc.{ZONE}"), RecordType::AAAA).to_vec().unwrap();
    let mut reply = [0; 4096];
    let asked = async {
        socket.send_to(&packet, coredns).await.ok()?;
        let len = socket.recv(&mut reply).await.ok()?;
        Message::from_vec(&reply[..len]).ok()
    };
    let said = tokio::time::timeout(Duration::from_secs(1), asked).await.ok().flatten();
    said.is_some_and(|message| message.answers.len() == 2)
}

/// A CoreDNS beside the cluster; it ends with its handle.
fn coredns(testbed: &Testbed, member: &Path, dir: &Path) -> (SocketAddr, Child) {
    let at = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let corefile = format!(
        ".:{} {{\n bind 127.0.0.1\n errors\n kubernetes cluster.local clusterset.local {{\n  kubeconfig {}\n  multicluster clusterset.local\n }}\n}}\n",
        at.port(),
        member.display()
    );
    std::fs::write(dir.join("Corefile"), corefile).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(testbed.program("coredns"));
    command.arg("-conf").arg(dir.join("Corefile")).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    (at, command.kill_on_drop(true).spawn().expect("coredns runs"))
}

const SQL: &str = "sql";

/// What stands where: service, cluster, addresses with host name and readiness.
type There = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>, bool)]);

const ENDPOINTS: &[There] = &[
    ("db", "east", &[("10.66.1.1", Some("db-0"), true), ("10.66.1.3", None, true), ("10.66.1.9", Some("db-9"), false)]),
    ("db", "west", &[("10.66.2.1", Some("db-0"), true), ("10.66.2.2", Some("db-0"), true)]),
    ("none", "east", &[("10.66.1.20", Some("late-0"), false)]),
    ("six", "east", &[("fd66::1", Some("six-0"), true), ("fd66::2", None, true)]),
];

/// The facts of the hub's topology.
fn facts() -> Vec<(String, Value)> {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
    let sql = json!([port(SQL, "TCP", 5432)]);
    let mut facts = Vec::new();
    for (name, net) in [("east", 1), ("west", 2)] {
        let cidrs =
            json!({"pods": [format!("10.66.{net}.0/24"), format!("fd66:{net}::/64")], "services": ["10.77.0.0/16"]});
        let cidrs = if name == "east" { cidrs } else { json!({"pods": ["10.66.2.0/24"]}) };
        let fact = json!({"name": name, "ready": true, "dnsReady": true, "spec": {"environment": "prod", "region": name}, "cidrs": cidrs});
        facts.push((format!("cluster/{name}"), fact));
    }
    let ports = json!([port("http", "TCP", 80), port("dns", "UDP", 53)]);
    facts.push(("service/prod/mcs/web".into(), json!({"clusters": ["east"], "ports": ports})));
    facts.push((
        "endpoints/east/mcs/web".into(),
        json!({"clusterIps": [VIP], "endpoints": [{"address": "10.66.1.80", "ready": true}], "ports": ports}),
    ));
    facts.push(("traffic/mcs/web".into(), json!({"service": "web", "answer": "VirtualIP"})));
    for service in ["db", "none", "six"] {
        let clusters: Vec<&str> =
            ENDPOINTS.iter().filter(|(of, ..)| *of == service).map(|(_, cluster, _)| *cluster).collect();
        facts.push((
            format!("service/prod/mcs/{service}"),
            json!({"clusters": clusters, "headless": true, "ports": sql}),
        ));
    }
    for (service, cluster, all) in ENDPOINTS {
        let one = |(address, host, ready): &(&str, Option<&str>, bool)| json!({"address": address, "hostname": host, "ready": ready});
        let endpoints: Vec<Value> = all.iter().map(one).collect();
        facts.push((format!("endpoints/{cluster}/mcs/{service}"), json!({"endpoints": endpoints, "ports": sql})));
    }
    facts
}

/// The kind in the version that CoreDNS reads.
fn kind() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "serviceimports.multicluster.x-k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1646"}},
        "spec": {"group": "multicluster.x-k8s.io", "scope": "Namespaced",
            "names": {"kind": "ServiceImport", "listKind": "ServiceImportList", "plural": "serviceimports", "singular": "serviceimport"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": schema}]}})
}

/// The same for CoreDNS.
fn objects() -> Value {
    let meta = |name: &str| json!({"name": name, "namespace": "mcs"});
    let import = |name: &str, kind: &str, ips: Value, ports: Value| {
        json!({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport", "metadata": meta(name),
            "spec": {"type": kind, "ips": ips, "ports": ports}})
    };
    let sql = json!([{"name": SQL, "protocol": "TCP", "port": 5432}]);
    let ports =
        json!([{"name": "http", "protocol": "TCP", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mcs"}}),
        import("web", "ClusterSetIP", json!([VIP]), ports),
    ];
    items.extend(["db", "none", "six"].map(|name| import(name, "Headless", json!([]), sql.clone())));
    for (service, cluster, all) in ENDPOINTS {
        let mut about = meta(&format!("{service}-{cluster}"));
        about["labels"] = json!({
            "multicluster.kubernetes.io/service-name": service, "multicluster.kubernetes.io/source-cluster": cluster});
        let one = |(address, host, ready): &(&str, Option<&str>, bool)| {
            let mut one = json!({"addresses": [address], "conditions": {"ready": ready}});
            if let Some(host) = host {
                one["hostname"] = json!(host);
            }
            one
        };
        let family = if all[0].0.parse::<IpAddr>().unwrap().is_ipv4() { "IPv4" } else { "IPv6" };
        items.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": about,
            "addressType": family, "ports": sql, "endpoints": all.iter().map(one).collect::<Vec<_>>()}));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
