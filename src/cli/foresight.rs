//! What answers of DNS and gateways would change if clusters failed: by `api::routing`, which decides for both, over the objects as they are.
//!
//! In: members, what they export (ServiceImports), TrafficPolicies, routes, the gateways as they reported themselves to the hub. Out: names
//! and routes whose clusters would be others, each for somebody in every region of the cluster set or at every gateway. How many endpoints a
//! cluster has stands in no object: who exports a service counts as able to serve it.

use std::collections::BTreeSet;

use atoll_api::kinds::gateway::{GRPCRoute, HTTPRoute, TCPRoute, TLSRoute, UDPRoute};
use atoll_api::kinds::{CLUSTER_SET_LABEL, Cluster, ServiceImport, TrafficPolicy, TrafficPolicySpec};
use atoll_api::names::ServiceName;
use atoll_api::routing::{Asker, Candidate, Chain, Choice, choose};
use atoll_api::topology::{ClusterFacts, Site};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{Failure, Outcome};

/// Everything that answers are decided by.
pub(crate) struct Names {
    clusters: Vec<ClusterFacts>,
    imports: Vec<ServiceImport>,
    traffic: Vec<TrafficPolicy>,
    routes: Vec<Backend>,
    gateways: Vec<Site>,
}

/// A service that a route leads to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Backend {
    route: String,
    hosts: Vec<String>,
    service: ServiceName,
}

/// What would change for one asker.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct Shift {
    /// A DNS name; or a route and the service that it leads to.
    pub(crate) what: String,
    /// The region of who asks, or the gateway that chooses.
    pub(crate) from: String,
    /// The clusters that are asked first.
    pub(crate) before: Vec<String>,
    pub(crate) after: Vec<String>,
    pub(crate) why: Vec<String>,
}

/// The names and routes that would change.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Shifts {
    pub(crate) names: Vec<Shift>,
    pub(crate) routes: Vec<Shift>,
}

impl Names {
    /// Reads what there is. Kinds that are not installed have no objects.
    pub(crate) async fn read(client: &Client, clusters: &[Cluster]) -> Outcome<Self> {
        let mut routes = Vec::new();
        routes.extend(routes_of::<HTTPRoute>(client).await?);
        routes.extend(routes_of::<GRPCRoute>(client).await?);
        routes.extend(routes_of::<TLSRoute>(client).await?);
        routes.extend(routes_of::<TCPRoute>(client).await?);
        routes.extend(routes_of::<UDPRoute>(client).await?);
        let imports: Vec<ServiceImport> = list(client).await?;
        let services: Vec<Service> = list(client).await?;
        routes.extend(list::<Ingress>(client).await?.iter().flat_map(|ingress| of_ingress(ingress, &services)));
        let known: BTreeSet<ServiceName> = imports.iter().map(name_of).collect();
        routes.retain(|route| known.contains(&route.service));
        routes.sort();
        routes.dedup();
        Ok(Self {
            clusters: clusters.iter().filter_map(facts).collect(),
            imports,
            traffic: list(client).await?.into_iter().filter(counts).collect(),
            routes,
            gateways: gateways(client).await?,
        })
    }

    /// What would change if `lost` failed together.
    pub(crate) fn without(&self, lost: &BTreeSet<String>) -> Shifts {
        let mut shifts = Shifts::default();
        for import in &self.imports {
            let set = set_of(import);
            let policy = self.policy_of(&name_of(import));
            let what = format!("{}.{}.svc.clusterset.local", import.name_any(), import.namespace().unwrap_or_default());
            for region in self.regions(set) {
                let asker = Asker { set, region: region.as_deref(), ..Asker::default() };
                shifts.names.extend(self.shift(
                    &what,
                    from(region.as_deref()),
                    &asker,
                    &self.offers(import),
                    policy,
                    lost,
                ));
            }
        }
        for policy in &self.traffic {
            shifts.names.extend(self.hosts(policy, lost));
        }
        for route in &self.routes {
            shifts.routes.extend(self.route(route, lost));
        }
        shifts
    }

    /// Hosts that gateways are answered for: they go where the gateways stand.
    fn hosts(&self, policy: &TrafficPolicy, lost: &BTreeSet<String>) -> Vec<Shift> {
        let standing = |c: &&ClusterFacts| self.gateways.iter().any(|g| g.cluster.as_deref() == Some(c.name.as_str()));
        let offers: Vec<&ClusterFacts> = self.clusters.iter().filter(standing).collect();
        let sets: BTreeSet<&str> = offers.iter().map(|c| c.set()).collect();
        let mut shifts = Vec::new();
        for (host, set) in policy.spec.hosts.iter().flat_map(|host| sets.iter().map(move |set| (host, *set))) {
            for region in self.regions(set) {
                let asker = Asker { set, region: region.as_deref(), ..Asker::default() };
                shifts.extend(self.shift(host, from(region.as_deref()), &asker, &offers, Some(&policy.spec), lost));
            }
        }
        shifts
    }

    /// Where each gateway would send the requests of a route; nobody's gateway stands nowhere.
    fn route(&self, route: &Backend, lost: &BTreeSet<String>) -> Vec<Shift> {
        let Some(import) = self.imports.iter().find(|import| name_of(import) == route.service) else {
            return Vec::new();
        };
        let set = set_of(import);
        let of_host = || {
            let mut all = self.traffic.iter().filter(|p| p.spec.hosts.iter().any(|host| route.hosts.contains(host)));
            all.next().map(|p| &p.spec)
        };
        let policy = self.policy_of(&route.service).or_else(of_host);
        let nowhere = [Site { instance: "any gateway".to_owned(), ..Site::default() }];
        let serving = self.gateways.iter().filter(|g| g.cluster_set.as_deref().is_none_or(|own| own == set));
        // A gateway that stands in a cluster that fails chooses nothing any more.
        let alive = serving.filter(|g| g.cluster.as_ref().is_none_or(|own| !lost.contains(own)));
        let alive: Vec<&Site> = alive.collect();
        let gateways = if alive.is_empty() { nowhere.iter().collect() } else { alive };
        let what = format!("{} → {}", route.route, route.service);
        let offers = self.offers(import);
        let each = gateways.into_iter().filter_map(|gateway| {
            let own = self.clusters.iter().find(|c| gateway.cluster.as_deref() == Some(c.name.as_str()));
            let asker = Asker {
                set,
                cluster: gateway.cluster.as_deref(),
                region: gateway.region.as_deref().or_else(|| own?.spec.region.as_deref()),
                zone: gateway.zone.as_deref().or_else(|| own?.spec.zone.as_deref()),
                location: own.and_then(|c| c.spec.location.as_ref()?.degrees()),
                ..Asker::default()
            };
            self.shift(&what, gateway.instance.clone(), &asker, &offers, policy, lost)
        });
        each.collect()
    }

    /// What `asker` gets now and would get then, where that differs.
    fn shift(
        &self,
        what: &str,
        from: String,
        asker: &Asker<'_>,
        offers: &[&ClusterFacts],
        policy: Option<&TrafficPolicySpec>,
        lost: &BTreeSet<String>,
    ) -> Option<Shift> {
        let (strategy, all_down) = policy.map_or((&[][..], None), |p| (p.strategy.as_slice(), p.all_down));
        // A policy that says nothing sensible is left out by DNS and gateway, too: the hub tells in its status.
        let chain = Chain::parse(strategy, all_down).unwrap_or_default();
        let ask = |lost: Option<&BTreeSet<String>>| -> (Vec<String>, Choice) {
            let is_up = |c: &ClusterFacts| c.ready && lost.is_none_or(|lost| !lost.contains(c.name.as_str()));
            let candidates: Vec<Candidate<'_>> = offers.iter().map(|c| Candidate::new(c, is_up(c), 1)).collect();
            let choice = choose(asker, &candidates, &chain);
            let first = choice.tiers.first().filter(|_| choice.resort.is_none());
            (first.into_iter().flatten().map(|i| candidates[*i].name().to_owned()).collect(), choice)
        };
        let ((before, _), (after, then)) = (ask(None), ask(Some(lost)));
        (before != after).then(|| Shift { what: what.to_owned(), from, before, after, why: then.why })
    }

    fn offers(&self, import: &ServiceImport) -> Vec<&ClusterFacts> {
        let exporters = import.status.iter().flat_map(|status| &status.clusters);
        exporters.filter_map(|e| self.clusters.iter().find(|c| c.name.as_str() == e.cluster)).collect()
    }

    fn policy_of(&self, service: &ServiceName) -> Option<&TrafficPolicySpec> {
        let of = |p: &&TrafficPolicy| {
            p.namespace().as_deref() == Some(&service.namespace) && p.spec.service.as_ref() == Some(&service.name)
        };
        self.traffic.iter().find(of).map(|p| &p.spec)
    }

    /// The regions of a set's members; nothing stands for those that say none.
    fn regions(&self, set: &str) -> BTreeSet<Option<String>> {
        self.clusters.iter().filter(|c| c.set() == set).map(|c| c.spec.region.clone()).collect()
    }
}

fn from(region: Option<&str>) -> String {
    region.map_or_else(|| "anywhere".to_owned(), |region| format!("region {region}"))
}

fn set_of(import: &ServiceImport) -> &str {
    import.labels().get(CLUSTER_SET_LABEL).map_or("", String::as_str)
}

fn name_of(import: &ServiceImport) -> ServiceName {
    ServiceName::new(import.namespace().unwrap_or_default(), import.name_any())
}

/// Whether a policy counts: the hub says of which it does not.
fn counts(policy: &TrafficPolicy) -> bool {
    let mut conditions = policy.status.iter().flat_map(|status| &status.conditions);
    !conditions.any(|c| c.type_ == "Accepted" && c.status == "False")
}

/// A member as data planes see it.
fn facts(cluster: &Cluster) -> Option<ClusterFacts> {
    let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    Some(ClusterFacts {
        name: cluster.name_any().parse().ok()?,
        spec: cluster.spec.clone(),
        labels: cluster.labels().clone(),
        cidrs: Default::default(),
        nodes: Vec::new(),
        dns: None,
        ready: conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
        dns_ready: true,
        overlaps: false,
    })
}

/// The gateways that the hub knows; none where that may not be read.
async fn gateways(client: &Client) -> Outcome<Vec<Site>> {
    let sites = match atoll_federation::stored_sites(client).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Vec::new(),
        found => found.map_err(Failure::api("read the sites that the hub knows"))?,
    };
    Ok(sites.into_iter().filter(|site| site.kind == "gateway").collect())
}

async fn routes_of<K: Resource<DynamicType = ()>>(client: &Client) -> Outcome<Vec<Backend>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    let found = there(api.list(&ListParams::default()).await, &K::plural(&()))?;
    Ok(found.iter().flat_map(|route| of_route(&K::kind(&()), route)).collect())
}

/// The ServiceImports that a route leads to.
fn of_route(kind: &str, route: &DynamicObject) -> Vec<Backend> {
    let spec = &route.data["spec"];
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let hosts: Vec<String> = all(&spec["hostnames"]).iter().filter_map(|h| h.as_str().map(str::to_owned)).collect();
    let own = route.namespace().unwrap_or_default();
    let backends = all(&spec["rules"]).into_iter().flat_map(|rule| all(&rule["backendRefs"]));
    let imports = backends.filter(|backend| backend["kind"] == "ServiceImport");
    let one = |backend: Value| {
        let namespace = backend["namespace"].as_str().unwrap_or(&own).to_owned();
        Some(Backend {
            route: format!("{kind} {own}/{}", route.name_any()),
            hosts: hosts.clone(),
            service: ServiceName::new(namespace, backend["name"].as_str()?),
        })
    };
    imports.filter_map(one).collect()
}

/// The services of an Ingress that are none of the hub's own: there they mean the imports of those names.
fn of_ingress(ingress: &Ingress, services: &[Service]) -> Vec<Backend> {
    let own = ingress.namespace().unwrap_or_default();
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths).map(move |path| (rule, path)));
    let is_here = |name: &str| services.iter().any(|s| s.namespace().as_deref() == Some(&own) && s.name_any() == name);
    let named = paths.filter_map(|(rule, path)| Some((rule, path.backend.service.as_ref()?.name.clone())));
    let one = |(rule, name): (&k8s_openapi::api::networking::v1::IngressRule, String)| Backend {
        route: format!("Ingress {own}/{}", ingress.name_any()),
        hosts: rule.host.iter().cloned().collect(),
        service: ServiceName::new(own.clone(), name),
    };
    named.filter(|(_, name)| !is_here(name)).map(one).collect()
}

async fn list<K>(client: &Client) -> Outcome<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    there(Api::<K>::all(client.clone()).list(&ListParams::default()).await, &K::plural(&()))
}

/// What a list found; a kind that is not there has no objects.
fn there<K: Clone>(found: kube::Result<kube::core::ObjectList<K>>, plural: &str) -> Outcome<Vec<K>> {
    match found {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(Failure::of_api(format!("list {plural}"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    fn world() -> Names {
        let cluster = |name: &str, environment: &str, region: &str| -> Cluster {
            read(
                json!({"metadata": {"name": name}, "spec": {"environment": environment, "region": region, "clusterSet": "prod"},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
            )
        };
        let clusters = [cluster("eu", "prod", "eu"), cluster("us", "prod", "us"), cluster("dr", "dr", "eu")];
        let import: ServiceImport =
            read(json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"atoll.dev/cluster-set": "prod"}},
            "spec": {}, "status": {"clusters": [{"cluster": "eu"}, {"cluster": "us"}, {"cluster": "dr"}]}}));
        let route: DynamicObject = read(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"hostnames": ["shop.test"], "rules": [{"backendRefs": [
                {"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "web", "port": 80}, {"name": "own", "port": 80}]}]}}));
        let host: TrafficPolicy =
            read(json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": {"hosts": ["shop.test"]}}));
        let site = |name: &str, cluster: &str| Site {
            instance: name.into(),
            kind: "gateway".into(),
            cluster: Some(cluster.into()),
            ..Site::default()
        };
        Names {
            clusters: clusters.iter().filter_map(facts).collect(),
            imports: vec![import],
            traffic: vec![host],
            routes: of_route("HTTPRoute", &route),
            gateways: vec![site("gateway-eu", "eu"), site("gateway-us", "us")],
        }
    }

    fn said(shifts: &[Shift]) -> Vec<String> {
        let one = |s: &Shift| format!("{} {}: {} > {}", s.what, s.from, s.before.join(","), s.after.join(","));
        shifts.iter().map(one).collect()
    }

    #[test]
    fn names_and_routes_go_where_dns_and_gateways_would_send_them() {
        let lost = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut world = world();
        let (web, route) = ("web.shop.svc.clusterset.local", "HTTPRoute shop/web → shop/web");
        let shifts = world.without(&lost(&["eu"]));
        assert_eq!(
            said(&shifts.names),
            [format!("{web} region eu: eu > us"), "shop.test region eu: eu > us".to_owned()]
        );
        assert!(shifts.routes.is_empty(), "the gateway there is lost, the other one's own cluster is not: {shifts:?}");
        let shifts = world.without(&lost(&["us", "eu"]));
        assert_eq!(
            said(&shifts.names)[..2],
            [format!("{web} region eu: eu > dr"), format!("{web} region us: us > dr")]
        );
        assert_eq!(
            said(&shifts.routes),
            [format!("{route} any gateway: eu > dr")].map(|s| s.replace("eu >", "eu,us >"))
        );
        let shifts = world.without(&lost(&["us", "eu", "dr"]));
        assert!(shifts.names.iter().all(|s| s.after.is_empty()), "nobody is left: {shifts:?}");
        assert_eq!(world.without(&lost(&["other"])), Shifts::default());
        // A policy of the service orders them otherwise.
        let policy = json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"service": "web", "strategy": [{"policy": "failover", "groups": [["eu"], ["dr"], ["us"]]}]}});
        world.traffic.push(read(policy));
        let shifts = world.without(&lost(&["eu"]));
        assert_eq!(said(&shifts.names)[0], format!("{web} region eu: eu > dr"));
        assert_eq!(said(&shifts.routes), [format!("{route} gateway-us: eu > dr")]);
    }
}
