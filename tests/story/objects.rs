//! The objects that people apply in the story, as they would write them.

/// The namespace of the story on the hub and in the members.
pub(crate) const NAMESPACE: &str = "market";
/// What one copy of `store` asks for.
pub(crate) const STORE_CPU_MILLI: i64 = 100;
/// The host that the gateway serves.
pub(crate) const HOST: &str = "market.example.com";

/// A Deployment and a Service as manifests of a Bundle.
fn manifests(name: &str, image: &str, replicas: u32, cpu_milli: i64) -> String {
    format!(
        r#"
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {{name: {name}}}
    spec:
      replicas: {replicas}
      selector: {{matchLabels: {{app: {name}}}}}
      template:
        metadata: {{labels: {{app: {name}}}}}
        spec:
          terminationGracePeriodSeconds: 8
          containers:
          - name: web
            image: {image}
            env: [{{name: REGION, value: eu}}, {{name: GRACE, value: 5s}}]
            ports: [{{name: http, containerPort: 8080}}]
            resources: {{requests: {{cpu: {cpu_milli}m, memory: 16Mi}}}}
            readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
  - apiVersion: v1
    kind: Service
    metadata: {{name: {name}}}
    spec:
      selector: {{app: {name}}}
      ports: [{{name: http, port: 80, targetPort: 8080}}]
"#
    )
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

/// A Bundle with its placement, exported.
fn bundle(namespace: &str, name: &str, placement: &str, manifests: &str, more: &str) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         placement: {placement}\n  exports: [{name}]\n{more}  manifests:{manifests}"
    )
}

/// The service that stands in every member: Bundle `web` in `shop`.
pub(crate) fn web() -> String {
    bundle("shop", "web", "{}", &manifests("web", "shop/web:1", 2, 20), "")
}

/// The Bundle of the story: prod-eu and prod-us first, dr when they can't hold it; divided 2 to 1; different in prod-us.
pub(crate) fn store() -> String {
    let placement = "{clusters: {environments: [prod, dr]}, affinityGroups: [[prod-eu, prod-us], [dr]], \
        division: {mode: Weighted, weights: {prod-eu: 2, prod-us: 1}}, failback: {stabilise: 20s}}";
    let overrides = "  overrides:\n  - clusters: {names: [prod-us]}\n    target: {kind: Deployment, name: store}\n    \
        patch: [{op: replace, path: /spec/template/spec/containers/0/env/0/value, value: us}]\n";
    bundle(NAMESPACE, "store", placement, &manifests("store", "shop/web:1", 3, STORE_CPU_MILLI), overrides)
}

/// A Bundle for one member alone.
pub(crate) fn only(namespace: &str, name: &str, member: &str) -> String {
    bundle(namespace, name, &format!("{{clusters: {{names: [{member}]}}}}"), &manifests(name, "shop/web:1", 1, 20), "")
}

/// Takes up CPU of a node.
pub(crate) fn filler(node: &str, cpu_milli: i64) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: filler-{node}, namespace: default, labels: {{app: filler}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: "shop/web:1"
    ports: [{{containerPort: 8080}}]
    resources: {{requests: {{cpu: {cpu_milli}m}}}}
"#
    )
}

/// A Gateway for HTTP and HTTPS, and a route by host and path: `/` to `store`, `/spare` to `spare`.
pub(crate) fn route(certificate: &str, key: &str) -> String {
    let indent = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        r"
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {{name: market-tls, namespace: {NAMESPACE}}}
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: market, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: atoll
  listeners:
  - {{name: http, protocol: HTTP, port: 80, hostname: {HOST}}}
  - name: https
    protocol: HTTPS
    port: 443
    hostname: {HOST}
    tls: {{mode: Terminate, certificateRefs: [{{name: market-tls}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: market, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: market}}]
  hostnames: [{HOST}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /spare}}}}]
    backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: spare, port: 80}}]
  - matches: [{{path: {{type: PathPrefix, value: /}}}}]
    backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 80}}]
",
        indent(certificate),
        indent(key)
    )
}

/// What the people of the story may do in its namespace.
pub(crate) fn roles() -> String {
    let role = |name: &str, resource: &str, subject: &str| {
        format!(
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}, namespace: {NAMESPACE}}}
rules:
- {{apiGroups: [atoll.dev], resources: ["*"], verbs: [get, list, watch]}}
- {{apiGroups: [atoll.dev], resources: [{resource}], verbs: [create, update, patch, delete]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, {subject}}}]
---"#
        )
    };
    role("asks", "replicationrequests", "kind: User, name: dev")
        + &role("approves", "replicationapprovals", "kind: Group, name: approvers")
}

/// What flows from dev's registry to another, once somebody of `approvers` agrees.
pub(crate) fn policy(to: &str) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: ReplicationPolicy\nmetadata: {{name: dev-to-{to}, namespace: {NAMESPACE}}}\n\
         spec: {{from: dev, to: {to}, direction: OneWay, repositories: [\"shop/*\"], approval: {{groups: [{{name: approvers, votes: 1}}]}}}}\n"
    )
}

/// A request for `shop/web:2`, with whatever its author would like to say of themselves.
pub(crate) fn request(name: &str, to: &str, annotations: &str) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: ReplicationRequest\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{{annotations}}}}}\n\
         spec: {{policy: dev-to-{to}, images: [\"shop/web:2\"]}}\n"
    )
}

/// A vote, with whatever its author would like to say of themselves.
pub(crate) fn vote(name: &str, request: &str, closure: &str, annotations: &str) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: ReplicationApproval\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{{annotations}}}}}\n\
         spec: {{request: {request}, decision: Approve, closure: \"{closure}\"}}\n"
    )
}

/// A pod that runs `shop/web:2`.
pub(crate) fn pod_of_new_image() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-2, namespace: {NAMESPACE}, labels: {{app: web-2}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: web, image: \"shop/web:2\", ports: [{{containerPort: 8080}}]}}\n"
    )
}

/// Records: a Zone with one, and a DNSEndpoint below the apex.
pub(crate) fn records() -> String {
    format!(
        r"
apiVersion: atoll.dev/v1alpha1
kind: Zone
metadata: {{name: story-example}}
spec:
  apex: story.example
  soa: {{mname: ns1.story.example, rname: hostmaster.story.example, negativeTtl: 60}}
  ns: [ns1.story.example]
  records:
  - {{name: www, type: A, ttl: 30, values: [192.0.2.10, 192.0.2.11]}}
---
apiVersion: externaldns.k8s.io/v1alpha1
kind: DNSEndpoint
metadata: {{name: board, namespace: {NAMESPACE}}}
spec:
  endpoints:
  - {{dnsName: board.atoll.internal, recordType: A, recordTTL: 30, targets: [192.0.2.20]}}
"
    )
}

/// A member of which only names are known.
pub(crate) fn names_only(name: &str, environment: &str, dns: &str) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: {name}}}\n\
         spec: {{environment: {environment}, sync: {{mode: None}}, reach: Direct, dns: {dns}}}\n"
    )
}

/// A registry of a member.
pub(crate) fn registry(name: &str, environment: &str, address: &str, guarded: bool) -> String {
    let credentials = if guarded { ", credentialsRef: {name: registry}" } else { "" };
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: Registry\nmetadata: {{name: {name}}}\n\
         spec: {{environment: {environment}, cluster: {name}, url: \"http://{address}\", insecure: true, backend: oci{credentials}}}\n---\n"
    )
}
