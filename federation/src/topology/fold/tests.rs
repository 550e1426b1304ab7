//! The fold: what is left out, what counts, and that any order of changes ends where a fold of everything does.

use atoll_api::kinds::{CLUSTER_SET_LABEL, Cluster, Zone};
use atoll_api::topology::ExportFacts;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::*;
use crate::membership::{Phase, Verdict};
use crate::sessions::News;

#[test]
fn addresses_that_cannot_be_a_pods_are_left_out() {
    for (address, fits, in_demo) in [
        ("10.1.2.3", true, true),
        ("fd00::1", true, true),
        ("127.1.2.3", false, true),
        ("::1", false, true),
        ("169.254.169.254", false, false),
        ("fe80::1", false, false),
        ("::ffff:127.0.0.1", false, false),
        ("0.0.0.0", false, false),
        ("224.0.0.1", false, false),
        ("255.255.255.255", false, false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!((is_pods(address, false), is_pods(address, true)), (fits, in_demo), "{address}");
    }
}

#[test]
fn a_service_is_what_its_oldest_valid_export_says() {
    let export = |cluster: &str, created: &str, valid: bool, ips: &[&str]| Export {
        cluster: cluster.parse().unwrap(),
        facts: ExportFacts { created: created.into(), valid },
        service: Some(MemberService {
            cluster_ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
            ..MemberService::default()
        }),
    };
    let all =
        [export("c", "1", false, &["10.0.0.1"]), export("a", "2", true, &[]), export("b", "3", true, &["10.0.0.2"])];
    let service = service(&all).unwrap();
    assert!(service.headless);
    assert_eq!(service.clusters, ["a", "b"]);
}

/// Everything that is folded, as it is at one moment.
#[derive(Clone, Default)]
struct Inputs {
    members: BTreeMap<ClusterName, Judged>,
    reported: BTreeMap<ClusterName, Facts>,
    zones: BTreeMap<String, Arc<Zone>>,
    records: BTreeMap<String, Arc<DNSEndpoint>>,
    traffic: BTreeMap<String, Arc<TrafficPolicy>>,
    imports: BTreeMap<String, Arc<ServiceImport>>,
    sites: BTreeMap<String, Site>,
    failing: BTreeMap<ServiceName, FailingFacts>,
    rtt: BTreeMap<String, BTreeMap<ClusterName, u32>>,
}

/// Who is touched by a step.
#[derive(Default)]
struct Step {
    members: bool,
    news: BTreeMap<ClusterName, News>,
    objects: bool,
    checks: bool,
}

const MEMBERS: [&str; 5] = ["dev", "eu", "us", "asia", "dr"];
const SETS: [&str; 3] = ["prod", "dev", "lab"];
const SERVICES: [&str; 4] = ["shop/web", "shop/db", "blog/web", "odd/a/b"];

impl Inputs {
    fn zones(&self) -> Vec<Entry> {
        let entry = |zone: &Arc<Zone>| Entry { zone: Arc::clone(zone), file: None, serial: 7, keys: keys(zone) };
        self.zones.values().map(entry).collect()
    }

    /// One random change.
    fn step(&mut self, dice: &mut StdRng) -> Step {
        let mut step = Step::default();
        let n: u32 = dice.random_range(0..1000);
        let member: ClusterName = MEMBERS[dice.random_range(0..MEMBERS.len())].parse().unwrap();
        let service = SERVICES[dice.random_range(0..SERVICES.len())];
        match dice.random_range(0..100) {
            0..8 => {
                let set = SETS[dice.random_range(0..SETS.len())];
                self.members.insert(member.clone(), judged(&member, set, n));
                step.members = true;
            }
            8..10 => {
                self.members.remove(&member);
                step.members = true;
            }
            10..12 => {
                self.reported.remove(&member);
                step.news.entry(member).or_default().all = true;
            }
            12..16 => {
                let mut facts = Facts::default();
                for service in SERVICES {
                    report(&mut facts, service, dice);
                }
                self.reported.insert(member.clone(), facts);
                step.news.entry(member).or_default().all = true;
            }
            16..70 => {
                let facts = self.reported.entry(member.clone()).or_default();
                let before = facts.clone();
                for _ in 0..dice.random_range(1..4) {
                    report(facts, service, dice);
                }
                step.news.entry(member).or_default().add(&before.diff(facts));
            }
            70..76 => {
                let (namespace, name) = service.split_once('/').unwrap();
                let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy",
                    "metadata": {"namespace": namespace, "name": format!("p{}", n % 3)},
                    "spec": {"service": name.replace('/', "-"), "ttlSeconds": n % 9}});
                put(&mut self.traffic, format!("{namespace}/{}", n % 3), object, n.is_multiple_of(5));
                step.objects = true;
            }
            76..82 => {
                let failing = |cluster: &str| (format!("{cluster}/10.0.0.{}", n % 4), "fails".to_owned());
                let policy = ServiceName::new(service.split_once('/').unwrap().0, format!("p{}", n % 3));
                self.failing.insert(policy, MEMBERS.iter().take((n % 5) as usize).map(|m| failing(m)).collect());
                self.rtt.insert(format!("r{}", n % 2), [(member, n)].into());
                step.checks = true;
            }
            82..88 => {
                let object = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
                    "metadata": {"namespace": "ops", "name": format!("r{}", n % 4), "generation": n},
                    "spec": {"endpoints": [{"dnsName": "a.test", "recordType": "A", "targets": ["192.0.2.1"]}]}});
                put(&mut self.records, format!("{}", n % 4), object, n.is_multiple_of(5));
                step.objects = true;
            }
            88..92 => {
                let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Zone",
                    "metadata": {"name": format!("z{}", n % 3)}, "spec": {"apex": format!("z{n}.test")}});
                put(&mut self.zones, format!("{}", n % 3), object, n.is_multiple_of(5));
                step.objects = true;
            }
            92..96 => {
                let (namespace, name) = service.split_once('/').unwrap();
                let clusters: Vec<_> =
                    MEMBERS.iter().filter(|_| dice.random()).map(|m| json!({"cluster": m})).collect();
                let object = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
                    "metadata": {"namespace": namespace, "name": name.replace('/', "-"),
                        "labels": {CLUSTER_SET_LABEL: SETS[dice.random_range(0..SETS.len())]}},
                    "spec": {"type": "ClusterSetIP", "ports": [{"port": 80 + n % 3}]}, "status": {"clusters": clusters}});
                put(&mut self.imports, service.to_owned(), object, n.is_multiple_of(5));
                step.objects = true;
            }
            _ => {
                let site = Site { instance: format!("dns-{}", n % 3), kind: "dns".into(), ..Site::default() };
                if n.is_multiple_of(4) {
                    self.sites.remove(&site.instance);
                } else {
                    self.sites.insert(site.instance.clone(), Site { region: Some(n.to_string()), ..site });
                }
                step.members = true;
            }
        }
        step
    }

    /// Tells the fold, as the publisher does.
    fn tell(&self, fold: &mut Fold, step: &Step) {
        let report = |(name, news): (&ClusterName, &News)| Report {
            cluster: name.clone(),
            facts: self.reported.get(name).cloned(),
            news: news.clone(),
        };
        fold.reports(step.news.iter().map(report).collect());
        if step.members {
            fold.members(&self.members);
            fold.sites(self.sites.values());
        }
        if step.objects {
            fold.traffic(self.traffic.values().cloned().collect());
            fold.records(self.records.values().cloned().collect());
            fold.zones(&self.zones());
        }
        if step.objects || fold.wants_imports() {
            fold.imports(self.imports.values().cloned().collect());
        }
        if step.checks {
            fold.checked(self.failing.clone(), &self.rtt);
        }
    }
}

fn keys(zone: &Zone) -> ZoneKeys {
    if !zone.spec.apex.contains('3') {
        return ZoneKeys::default();
    }
    serde_json::from_value(json!({"signing": [{"algorithm": "ECDSAP256SHA256", "secret": "AA=="}]})).unwrap_or_default()
}

fn put<K: serde::de::DeserializeOwned>(
    all: &mut BTreeMap<String, Arc<K>>,
    at: String,
    object: serde_json::Value,
    gone: bool,
) {
    if gone {
        all.remove(&at);
    } else {
        all.insert(at, Arc::new(serde_json::from_value(object).unwrap()));
    }
}

fn judged(name: &ClusterName, set: &str, n: u32) -> Judged {
    let spec = serde_json::from_value(json!({"environment": "prod", "clusterSet": set})).unwrap();
    let verdict = Verdict {
        phase: Phase::Ready,
        ready: !n.is_multiple_of(3),
        dns_ready: n.is_multiple_of(2),
        overlaps: false,
        silent_for: std::time::Duration::ZERO,
        good_for: std::time::Duration::ZERO,
        conditions: Vec::new(),
    };
    let cluster = Arc::new(Cluster::new(name.as_str(), spec));
    Judged { cluster, member: Arc::default(), cidrs: Default::default(), dns: None, verdict }
}

/// Changes one fact of one service in what a member reports.
fn report(facts: &mut Facts, service: &str, dice: &mut StdRng) {
    let n: u32 = dice.random_range(0..1000);
    let word = [key::EXPORT, key::SERVICE, key::ENDPOINTS][dice.random_range(0..3)];
    let at = format!("{word}/{service}");
    if n.is_multiple_of(7) {
        facts.remove(&at);
        return;
    }
    let endpoint = |last: u32| json!({"address": format!("10.0.0.{}", last % 4), "ready": n.is_multiple_of(2)});
    let value = match word {
        key::EXPORT => json!({"created": format!("{}", n % 10), "valid": !n.is_multiple_of(5)}),
        key::SERVICE => {
            json!({"clusterIps": [format!("10.9.0.{}", n % 200)], "ports": [{"protocol": "TCP", "port": 80 + n % 4}]})
        }
        _ => json!({"endpoints": [endpoint(n), endpoint(n + 1), {"address": "127.0.0.1", "ready": true}]}),
    };
    facts.put(at, &value);
}

/// The facts of everything, folded at once and as plainly as can be: what the rules say.
fn whole(inputs: &Inputs) -> Facts {
    let mut out = Facts::default();
    let mut exports: BTreeMap<(String, ServiceName), Vec<Export>> = BTreeMap::new();
    for (name, judged) in &inputs.members {
        out.put(format!("{}/{name}", key::CLUSTER), &cluster(name, judged));
        let facts = inputs.reported.get(name);
        for (word, rest, json) in [key::ENDPOINTS, key::EXPORT].into_iter().flat_map(|word| {
            facts.into_iter().flat_map(move |f| f.under(word)).map(move |(rest, json)| (word, rest, json))
        }) {
            let Some((namespace, service)) = rest.split_once('/').filter(|(_, s)| !s.contains('/')) else { continue };
            let (at, theirs) = (ServiceName::new(namespace, service), format!("{}/{rest}", key::SERVICE));
            let service: Option<MemberService> = facts.and_then(|f| f.get(&theirs));
            if word == key::EXPORT {
                let found = Export { cluster: name.clone(), facts: serde_json::from_slice(json).unwrap(), service };
                exports.entry((judged.cluster.spec.set().to_owned(), at)).or_default().push(found);
                continue;
            }
            let mut found: Endpoints = serde_json::from_slice(json).unwrap();
            found.cluster_ips = service.map(|s| s.cluster_ips).unwrap_or_default();
            found.endpoints.retain(|e| is_pods(e.address, false));
            let policies = inputs
                .traffic
                .values()
                .filter(|t| t.namespace() == Some(at.namespace.clone()) && t.spec.service.as_ref() == Some(&at.name));
            let policies = policies.map(|t| ServiceName::new(at.namespace.clone(), t.name_any()));
            let out_of: BTreeSet<&String> =
                policies.filter_map(|p| inputs.failing.get(&p)).flat_map(|failing| failing.keys()).collect();
            for endpoint in found.endpoints.iter_mut().filter(|e| e.ready) {
                endpoint.failing = out_of.contains(&format!("{name}/{}", endpoint.address));
                endpoint.ready = !endpoint.failing;
            }
            out.put(format!("{}/{name}/{rest}", key::ENDPOINTS), &found);
        }
    }
    let mut services: BTreeMap<(String, ServiceName), ServiceFacts> = BTreeMap::new();
    for (at, mut exports) in exports {
        exports.sort_by(|a, b| (&a.facts.created, &a.cluster).cmp(&(&b.facts.created, &b.cluster)));
        services.extend(service(&exports).map(|found| (at, found)));
    }
    for import in inputs.imports.values() {
        let set = import.labels()[CLUSTER_SET_LABEL].clone();
        let exporters = import.status.iter().flat_map(|s| &s.clusters).map(|c| c.cluster.clone());
        let silent = exporters.filter(|name| {
            let name: ClusterName = name.parse().unwrap();
            let theirs = inputs.members.get(&name).is_some_and(|j| j.cluster.spec.set() == set);
            theirs && !inputs.reported.contains_key(&name)
        });
        let silent: Vec<String> = silent.collect();
        if !silent.is_empty() {
            let name = ServiceName::new(import.namespace().unwrap(), import.name_any());
            let port = |p: &atoll_api::kinds::ServiceImportPort| atoll_api::topology::ServicePort {
                protocol: "TCP".into(),
                port: p.port as u16,
                ..Default::default()
            };
            let new = || ServiceFacts { ports: import.spec.ports.iter().map(port).collect(), ..Default::default() };
            services.entry((set, name)).or_insert_with(new).clusters.extend(silent);
        }
    }
    for ((set, name), facts) in services {
        out.put(format!("{}/{set}/{name}", key::SERVICE), &facts);
    }
    for Entry { zone, file, serial, keys } in inputs.zones() {
        let name = zone.name_any();
        out.put(format!("{}/{name}", key::ZONE), &ZoneFacts { spec: zone.spec.clone(), file, serial });
        if keys != ZoneKeys::default() {
            out.put(format!("{}/{name}", key::ZONE_KEYS), &keys);
        }
    }
    for object in inputs.records.values() {
        let revision = object.metadata.generation.unwrap();
        let facts = RecordsFacts { endpoints: object.spec.endpoints.clone(), revision };
        out.put(format!("{}/ops/{}", key::RECORDS, object.name_any()), &facts);
    }
    for object in inputs.traffic.values() {
        out.put(format!("{}/{}/{}", key::TRAFFIC, object.namespace().unwrap(), object.name_any()), &object.spec);
    }
    for (policy, failing) in inputs.failing.iter().filter(|(_, failing)| !failing.is_empty()) {
        out.put(format!("{}/{policy}", key::FAILING), failing);
    }
    for (region, rtt) in &inputs.rtt {
        out.put(format!("{}/{region}", key::RTT), rtt);
    }
    for site in inputs.sites.values() {
        out.put(format!("{}/{}", key::SITE, site.instance), site);
    }
    out
}

/// 24 histories of 150 generations with one to three changes each, by fixed seeds: after each generation the facts are those of a fold of
/// everything, and whoever took every change that was given out holds them too.
#[test]
fn any_history_of_changes_ends_where_a_fold_of_everything_does() {
    for seed in 0..24 {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut inputs, mut follower) = (Inputs::default(), Facts::default());
        let mut fold = Fold::new(Arc::default(), false);
        for generation in 0..150 {
            for _ in 0..dice.random_range(1..4) {
                let step = inputs.step(&mut dice);
                inputs.tell(&mut fold, &step);
            }
            fold.finish();
            let expected = whole(&inputs);
            let differs: Vec<String> = {
                let change = expected.diff(fold.facts());
                change.upserts.into_keys().chain(change.removed).collect()
            };
            assert!(differs.is_empty(), "seed {seed}, generation {generation}: {differs:?}");
            follower.apply(&fold.take());
            assert_eq!(follower.digest(), expected.digest(), "seed {seed}, generation {generation}: the follower");
        }
        assert!(follower.len() > 20, "seed {seed}: much was folded, not only {}", follower.len());
    }
}

#[test]
fn a_change_of_one_endpoint_is_one_fact_and_its_services_are_left_alone() {
    let mut fold = Fold::new(Arc::default(), false);
    let names: Vec<ClusterName> = ["eu", "us"].map(|n| n.parse().unwrap()).into();
    fold.members(&names.iter().map(|name| (name.clone(), judged(name, "prod", 1))).collect());
    let endpoints = |ready: bool| json!({"endpoints": [{"address": "10.0.0.1", "ready": ready}]});
    let mut facts = Facts::default();
    for n in 0..100 {
        facts.put(format!("{}/shop/s{n}", key::EXPORT), &json!({"created": "1", "valid": true}));
        facts.put(format!("{}/shop/s{n}", key::SERVICE), &json!({"clusterIps": ["10.9.0.1"]}));
        facts.put(format!("{}/shop/s{n}", key::ENDPOINTS), &endpoints(true));
    }
    let all = News { all: true, ..News::default() };
    let report = |cluster: &ClusterName, facts: &Facts, news: News| {
        vec![Report { cluster: cluster.clone(), facts: Some(facts.clone()), news }]
    };
    for name in &names {
        fold.reports(report(name, &facts, all.clone()));
    }
    fold.finish();
    assert_eq!(fold.take().upserts.len(), 2 + 2 * 100 + 100, "members, endpoints of each, services of the set");
    let before = facts.clone();
    facts.put(format!("{}/shop/s7", key::ENDPOINTS), &endpoints(false));
    let mut news = News::default();
    news.add(&before.diff(&facts));
    fold.reports(report(&names[1], &facts, news));
    fold.finish();
    let change = fold.take();
    assert_eq!(change.upserts.keys().collect::<Vec<_>>(), ["endpoints/us/shop/s7"]);
    assert!(change.removed.is_empty() && !change.full);
}

#[test]
fn what_a_member_asks_of_gateways_is_in_the_topology_while_it_is_a_member() {
    let name: ClusterName = "eu".parse().unwrap();
    let mut fold = Fold::new(Arc::new(Offers::default()), false);
    fold.members(&BTreeMap::from([(name.clone(), judged(&name, "prod", 1))]));
    let mut facts = Facts::default();
    facts.put("balancer/shop/web", &json!({"ports": [{"protocol": "TCP", "port": 80}], "ranges": ["10.0.0.0/8"]}));
    facts.put("endpoints/shop/web", &json!({"endpoints": [{"address": "10.0.0.1", "ready": true}]}));
    let news = News { all: true, ..News::default() };
    fold.reports(vec![Report { cluster: name.clone(), facts: Some(facts.clone()), news }]);
    fold.finish();
    let asked: BalancerFacts = fold.facts().get("balancer/eu/shop/web").unwrap();
    assert_eq!((asked.ports[0].port, asked.ranges.len()), (80, 1));
    assert!(fold.facts().get::<Endpoints>("endpoints/eu/shop/web").is_some(), "although nobody exports it");
    let before = facts.clone();
    facts.remove("balancer/shop/web");
    let mut news = News::default();
    news.add(&before.diff(&facts));
    fold.reports(vec![Report {
        cluster: name.clone(),
        facts: Some(before),
        news: News { all: true, ..News::default() },
    }]);
    fold.reports(vec![Report { cluster: name.clone(), facts: Some(facts), news }]);
    fold.finish();
    assert!(fold.facts().json("balancer/eu/shop/web").is_none(), "it is asked for no more");
    let mut again = Facts::default();
    again.put("balancer/shop/web", &json!({"ports": [{"protocol": "TCP", "port": 80}]}));
    again.put("endpoints/shop/web", &json!({"endpoints": []}));
    let news = News { all: true, ..News::default() };
    fold.reports(vec![Report { cluster: name, facts: Some(again), news }]);
    fold.members(&BTreeMap::new());
    fold.finish();
    assert!(fold.facts().json("balancer/eu/shop/web").is_none(), "it is no member any more");
}
