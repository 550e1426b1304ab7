//! Backends by name: resolved by a DNS server whose answers change, fail, and lead where they may not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_gateway::NameSettings;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::{get, send_h2c};
use crate::ingress::ingress;
use crate::ingress_tls::{Authority, serve};
use crate::l4::{free_port, stream_route, until_pod};
use crate::survive::until_saved;
use crate::world::{Made, World, gateway, listener, route, service, topology};

/// What is answered.
#[derive(Clone)]
enum Says {
    Addresses(Vec<IpAddr>),
    /// The same, too much for a datagram.
    Many(Vec<IpAddr>),
    Alias(&'static str),
    Nothing,
    NoSuchName,
    Fails,
}

/// A DNS server that says what it is told to, for a second each.
#[derive(Clone)]
struct Dns {
    at: SocketAddr,
    says: Arc<Mutex<BTreeMap<String, Says>>>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Dns {
    async fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(at).await.unwrap();
        let dns = Self { at, says: Arc::default(), asked: Arc::default() };
        let (by_udp, by_tcp) = (dns.clone(), dns.clone());
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = udp.recv_from(&mut packet).await {
                let _ = udp.send_to(&by_udp.answer(&packet[..n], true), from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let Ok(len) = stream.read_u16().await else { continue };
                let mut query = vec![0; usize::from(len)];
                stream.read_exact(&mut query).await.unwrap();
                let answer = by_tcp.answer(&query, false);
                let len = u16::try_from(answer.len()).unwrap();
                stream.write_all(&[&len.to_be_bytes()[..], &answer].concat()).await.unwrap();
            }
        });
        dns
    }

    fn answer(&self, query: &[u8], by_udp: bool) -> Vec<u8> {
        let query = Message::from_vec(query).unwrap();
        let asked = query.queries[0].clone();
        let (owner, is_a) = (asked.name.clone(), asked.query_type == RecordType::A);
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        answer.add_query(asked);
        let name = owner.to_string().trim_end_matches('.').to_owned();
        *self.asked.lock().unwrap().entry(name.clone()).or_default() += 1;
        let record = |data| Record::from_rdata(owner.clone(), 1, data);
        let mut add = |ips: &[IpAddr]| {
            answer.answers.extend(ips.iter().filter(|ip| ip.is_ipv4() == is_a).map(|ip| match ip {
                IpAddr::V4(ip) => record(RData::A(A(*ip))),
                IpAddr::V6(ip) => record(RData::AAAA(AAAA(*ip))),
            }));
        };
        match self.says.lock().unwrap().get(&name).cloned().unwrap_or(Says::NoSuchName) {
            Says::Addresses(ips) => add(&ips),
            Says::Many(_) if by_udp => answer.metadata.truncation = true,
            Says::Many(ips) => add(&ips),
            Says::Alias(to) => answer.answers.push(record(RData::CNAME(CNAME(Name::from_ascii(to).unwrap())))),
            Says::Nothing => {}
            Says::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
            Says::Fails => answer.metadata.response_code = ResponseCode::ServFail,
        }
        if answer.answers.is_empty() && answer.metadata.response_code != ResponseCode::ServFail {
            let (test, of) = (Name::from_ascii("test.").unwrap(), Name::from_ascii("ns.test.").unwrap());
            let soa = SOA::new(of.clone(), of, 1, 1, 1, 1, 1);
            answer.authorities.push(Record::from_rdata(test, 1, RData::SOA(soa)));
        }
        answer.to_vec().unwrap()
    }

    fn say(&self, name: &str, says: Says) {
        self.says.lock().unwrap().insert(name.to_owned(), says);
    }

    fn leads(&self, name: &str, pods: &[&Pod]) {
        self.say(name, Says::Addresses(pods.iter().map(|pod| pod.address.ip()).collect()));
    }

    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    /// Waits until it was asked so often more.
    async fn until_asked(&self, name: &str, more: usize) {
        let (began, before) = (Instant::now(), self.asked(name));
        while self.asked(name) < before + more {
            assert!(began.elapsed() < Duration::from_secs(30), "`{name}` is not asked again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A world that asks `dns`; pods are on loopback, of which it may use those of the tests.
fn made(dns: &Dns) -> Made<'static> {
    let allow = ["127.46.0.0/16", "::1/128"].map(|range| range.parse().unwrap()).to_vec();
    Made { names: NameSettings { servers: vec![dns.at], allow, deny: Vec::new() }, ..Made::default() }
}

fn external(name: &str, to: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": to}})
}

fn to(name: &str, port: u16) -> Value {
    json!([{"backendRefs": [{"name": name, "port": port}]}])
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_name_is_followed_by_its_ttl_and_used_on_when_nobody_answers() {
    let dns = Dns::start().await;
    let world = World::start_as(made(&dns)).await;
    let one = Pod::start("one", "127.46.0.1").await;
    let port = one.address.port();
    let two = Pod::start_as("two", "127.46.0.2", port, Manner::Well).await;
    let six = Pod::start_as("six", "::1", port, Manner::Well).await;
    dns.leads("db.test", &[&one]);
    dns.leads("unused.test", &[&one]);
    world.apply(external("db", "DB.test.")).await;
    world.apply(external("unused", "unused.test")).await;
    world.apply(route("web", &["web.test"], to("db", port))).await;
    world.apply(route("missing", &["missing.test"], to("absent", port))).await;
    let answer = world.until("web.test", "/", |a| a.pod() == "one").await;
    assert_eq!(answer.said()["headers"]["host"], "web.test", "the host is the client's");
    world.until("missing.test", "/", |a| a.status == 500).await;

    // Another address, then several of both families: no request fails meanwhile.
    let mut met = BTreeMap::<String, usize>::new();
    let mut all_answer = async |until: &[&str]| {
        met.clear();
        let began = Instant::now();
        while met.len() != until.len() || !until.iter().all(|pod| met.contains_key(*pod)) {
            let answer = get(world.http, "web.test", "/").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            *met.entry(answer.pod().to_owned()).or_default() += 1;
            assert!(began.elapsed() < Duration::from_secs(30), "{met:?}");
            if met.values().sum::<usize>() > 200 {
                met.clear();
            }
        }
    };
    dns.leads("db.test", &[&two]);
    all_answer(&["one", "two"]).await;
    dns.leads("db.test", &[&one, &two, &six]);
    all_answer(&["one", "two", "six"]).await;
    // What does not fit a datagram comes by TCP; an alias is followed.
    dns.say("many.test", Says::Many(vec![two.address.ip()]));
    dns.say("db.test", Says::Alias("many.test."));
    until("only `two` is left", async || {
        let said = world.server.explain("web.test", "/", None).await;
        said["listeners"][0]["backends"][0]["names"][0]["addresses"] == json!(["127.46.0.2"])
    })
    .await;
    assert_eq!(get(world.http, "web.test", "/").await.pod(), "two");

    // Nobody answers any more: what was good is used on, and people are told.
    dns.say("db.test", Says::Fails);
    dns.until_asked("db.test", 5).await;
    assert_eq!(get(world.http, "web.test", "/").await.pod(), "two");
    let said = world.server.explain("web.test", "/", None).await;
    let name = &said["listeners"][0]["backends"][0]["names"][0];
    assert_eq!((&name["name"], &name["addresses"]), (&json!("db.test"), &json!(["127.46.0.2"])));
    assert!(name["trouble"].as_str().unwrap().contains("Server Failure"), "{name}");
    assert!(name["usedForSeconds"].as_f64().unwrap() > 86_000.0, "{name}");
    assert!(name["askedAgainInSeconds"].as_f64().unwrap() <= 30.0, "{name}");
    let upstreams = world.server.upstreams();
    assert!(upstreams.to_string().contains("\"name\":\"db.test\""), "{upstreams}");
    let status = world.read(route("web", &[], json!([]))).await;
    assert_eq!(status["status"]["parents"][0]["conditions"][1]["status"], "True", "{}", status["status"]);

    // It is answered that there is none: then there is none. And it comes back.
    dns.say("db.test", Says::NoSuchName);
    world.until("web.test", "/", |a| a.status == 503).await;
    dns.say("db.test", Says::Nothing);
    dns.until_asked("db.test", 3).await;
    assert_eq!(get(world.http, "web.test", "/").await.status, 503);
    dns.leads("db.test", &[&one]);
    world.until("web.test", "/", |a| a.pod() == "one").await;

    // Only what a route uses is asked.
    assert_eq!(dns.asked("unused.test"), 0);
    world.apply(route("other", &["other.test"], to("unused", port))).await;
    world.until("other.test", "/", |a| a.status == 200).await;
    world.delete(route("web", &[], json!([]))).await;
    world.until("web.test", "/", |a| a.status == 404).await;
    dns.until_asked("unused.test", 2).await;
    let before = dns.asked("db.test");
    dns.until_asked("unused.test", 6).await;
    assert_eq!(dns.asked("db.test"), before, "nobody uses it");
}

#[tokio::test]
async fn a_name_leads_to_no_place_that_is_the_machines_own() {
    let dns = Dns::start().await;
    let world = World::start_as(made(&dns)).await;
    let one = Pod::start("one", "127.46.1.1").await;
    let port = one.address.port();
    let here = Pod::start_as("here", "127.0.0.1", port, Manner::Well).await;
    let ips = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    dns.say("mixed.test", Says::Addresses(ips(&["127.46.1.1", "169.254.169.254", "fe80::1", "0.0.0.0"])));
    dns.say("bad.test", Says::Addresses(ips(&["127.0.0.1", "::ffff:127.0.0.1"])));
    for (name, to_name) in [("mixed", "mixed.test"), ("bad", "bad.test"), ("address", "127.46.1.1")] {
        world.apply(external(name, to_name)).await;
        world.apply(route(name, &[&format!("{name}.web")], to(name, port))).await;
    }
    world.until("mixed.web", "/", |a| a.pod() == "one").await;
    world.until("bad.web", "/", |a| a.status == 503).await;
    let condition = |status: &Value| status["parents"][0]["conditions"][1].clone();
    let told = |status: &Value, word: &str| condition(status)["message"].as_str().is_some_and(|m| m.contains(word));
    let status = world.until_status(route("mixed", &[], json!([])), |s| told(s, "169.254.169.254 (link-local)")).await;
    assert!(told(&status, "fe80::1 (link-local)") && told(&status, "0.0.0.0 (unspecified)"), "{status}");
    assert_eq!(condition(&status)["status"], "True");
    let status = world.until_status(route("bad", &[], json!([])), |s| told(s, "which leaves none")).await;
    assert!(told(&status, "`bad.test` leads to 127.0.0.1 (loopback)"), "{status}");
    let status = world.until_status(route("address", &[], json!([])), |s| condition(s)["status"] == "False").await;
    assert!(told(&status, "an address, not a name"), "{status}");
    assert_eq!(get(world.http, "address.web", "/").await.status, 500);
    let said = world.server.explain("mixed.web", "/", None).await;
    let refused = &said["listeners"][0]["backends"][0]["names"][0]["refused"];
    assert_eq!(refused[1], json!({"address": "169.254.169.254", "why": "link-local"}), "{said:#}");
    assert_eq!(get(world.http, "bad.web", "/").await.status, 503);
    assert_eq!(here.hits(), 0);
    // Once it leads elsewhere nothing is said any more.
    dns.leads("bad.test", &[&one]);
    world.until("bad.web", "/", |a| a.pod() == "one").await;
    world.until_status(route("bad", &[], json!([])), |s| told(s, "everything that it names is there")).await;
}

#[tokio::test]
async fn every_kind_of_route_reaches_backends_by_name() {
    let dns = Dns::start().await;
    let world = World::make(made(&dns)).await;
    let one = Pod::start("one", "127.46.2.1").await;
    let port = one.address.port();
    let echo = UdpSocket::bind(one.address).await.unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((n, from)) = echo.recv_from(&mut packet).await {
            let _ = echo.send_to(&packet[..n], from).await;
        }
    });
    let authority = Authority::new("theirs");
    let tls_at = serve("127.46.2.2", &authority.vouch("pass.test", "pass"), None).await;
    dns.leads("db.test", &[&one]);
    dns.say("tls.test", Says::Addresses(vec![tls_at.ip()]));
    // Of a stated port the targetPort counts.
    let mut db = external("db", "db.test");
    let listed = |protocol: &str| json!({"name": format!("p-{protocol}").to_lowercase(), "port": 80, "targetPort": port, "protocol": protocol});
    db["spec"]["ports"] = json!([listed("TCP"), listed("UDP")]);
    world.apply(db).await;
    world.apply(external("tls", "tls.test")).await;
    let (tcp, udp, pass) = (free_port().await, free_port().await, free_port().await);
    let mut passed = listener("pass", pass, "TLS");
    passed["tls"] = json!({"mode": "Passthrough"});
    let listeners = [listener("http", 80, "HTTP"), listener("tcp", tcp, "TCP"), listener("udp", udp, "UDP"), passed];
    world.apply(gateway("main", json!(listeners))).await;
    let db = json!({"name": "db", "port": 80});
    world.apply(stream_route("TCPRoute", "tcp", "tcp", db.clone())).await;
    world.apply(stream_route("UDPRoute", "udp", "udp", db.clone())).await;
    let mut through = stream_route("TLSRoute", "pass", "pass", json!({"name": "tls", "port": tls_at.port()}));
    through["spec"]["hostnames"] = json!(["pass.test"]);
    world.apply(through).await;
    let mut grpc = route("grpc", &["grpc.test"], json!([{"backendRefs": [db]}]));
    grpc["kind"] = json!("GRPCRoute");
    world.apply(grpc).await;
    let mut entry = ingress("entry", "entry.test", "db", &[], &[("/", "Prefix")]);
    entry["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"name": "p-tcp"});
    world.apply(entry).await;

    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    until_pod(local(tcp), "one").await;
    world.until("entry.test", "/", |a| a.pod() == "one").await;
    until("gRPC", async || send_h2c(world.http, "http://grpc.test/a.B/C").await.said()["version"] == "HTTP/2.0").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(local(udp)).await.unwrap();
    until("UDP", async || {
        let mut packet = [0; 100];
        let _ = client.send(b"hello").await;
        let back = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut packet)).await;
        matches!(back, Ok(Ok(5)))
    })
    .await;
    let roots = authority.roots();
    until("TLS", async || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
        let Ok(stream) = tokio::net::TcpStream::connect(local(pass)).await else { return false };
        let name = rustls_pki_types::ServerName::try_from("pass.test").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn tls_to_a_name_is_as_its_policy_says() {
    let dns = Dns::start().await;
    let world = World::start_as(made(&dns)).await;
    let authority = Authority::new("theirs");
    let at = serve("127.46.3.1", &authority.vouch("inside.test", "inside"), None).await;
    dns.say("secure.test", Says::Addresses(vec![at.ip()]));
    world.apply(external("secure", "secure.test")).await;
    world
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "shop"},
            "data": {"ca.crt": authority.pem}}))
        .await;
    let policy = |hostname: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
            "metadata": {"name": "secure", "namespace": "shop"}, "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "secure"}],
                "validation": {"hostname": hostname, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}}})
    };
    world.apply(policy("inside.test")).await;
    world.apply(route("secure", &["web.test"], to("secure", at.port()))).await;
    world.until("web.test", "/", |a| a.body == "by TLS").await;
    world.apply(policy("another.test")).await;
    world.until("web.test", "/", |a| a.status == 502 || a.status == 503).await;
}

#[tokio::test]
async fn endpoints_that_people_wrote_are_used_by_address_and_by_name() {
    let dns = Dns::start().await;
    let world = World::start_as(made(&dns)).await;
    let one = Pod::start("one", "127.46.4.1").await;
    let port = one.address.port();
    let two = Pod::start_as("two", "127.46.4.2", port, Manner::Well).await;
    let six = Pod::start_as("six", "::1", port, Manner::Well).await;
    let named = Pod::start_as("named", "127.46.4.3", port, Manner::Well).await;
    dns.leads("pods.test", &[&named]);
    // No selector, no pods: whoever wrote it says where the endpoints are.
    let [object, _] = service("fixed", &one);
    world.apply(object).await;
    let slice = |name: &str, kind: &str, endpoints: Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "fixed"}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
    };
    let out = json!({"addresses": ["127.46.4.9"], "conditions": {"ready": false}});
    world
        .apply(slice(
            "four",
            "IPv4",
            json!([{"addresses": [one.address.ip()]}, {"addresses": [two.address.ip()]}, out]),
        ))
        .await;
    world.apply(slice("six", "IPv6", json!([{"addresses": [six.address.ip()]}]))).await;
    world
        .apply(slice(
            "names",
            "FQDN",
            json!([{"addresses": ["pods.test"]}, {"addresses": ["nobody.test"], "conditions": {"ready": false}}]),
        ))
        .await;
    world.apply(route("web", &["web.test"], to("fixed", 80))).await;
    let mut met = BTreeMap::<String, usize>::new();
    until("all four answer", async || {
        let answer = get(world.http, "web.test", "/").await;
        if answer.status == 200 {
            *met.entry(answer.pod().to_owned()).or_default() += 1;
        }
        met.len() == 4
    })
    .await;
    assert_eq!(dns.asked("nobody.test"), 0, "it is not ready");
    // Its health counts as any other's: it dies, the others take its requests.
    named.die();
    for _ in 0..40 {
        assert_eq!(get(world.http, "web.test", "/").await.status, 200);
    }
    world.delete(slice("names", "FQDN", json!([]))).await;
    until("the name is left", async || !world.server.upstreams().to_string().contains("pods.test")).await;
}

#[tokio::test]
async fn a_restart_without_dns_uses_what_names_led_to() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Dns::start().await;
    let mut world = World::make(Made { dir: Some(dir.path()), ..made(&dns) }).await;
    let one = Pod::start("one", "127.46.5.1").await;
    world.publish(topology(&[]), true);
    dns.leads("db.test", &[&one]);
    world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    world.apply(external("db", "db.test")).await;
    world.apply(route("web", &["web.test"], to("db", one.address.port()))).await;
    world.until("web.test", "/", |a| a.pod() == "one").await;
    until_saved(dir.path(), |text| text.contains("\"db.test\":[\"127.46.5.1\"]")).await;
    world.stop().await;
    dns.say("db.test", Says::Fails);
    let again = world.beside(Made { dir: Some(dir.path()), ..made(&dns) }).await;
    until("it is ready", async || again.server.is_ready()).await;
    assert_eq!(get(again.http, "web.test", "/").await.pod(), "one", "from the first request on");
}
