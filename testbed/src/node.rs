//! The configuration files of a member's node: containerd, CNI, kubelet, kube-proxy.
//! In: the plan and the folder. Out: text. Every flag that is not obvious says why it is there.

use std::path::Path;

use serde_json::{Value, json};

use crate::plan::MemberPlan;
use crate::registry::Registry;

/// The name under which each containerd holds the pause image.
pub(crate) const PAUSE_IMAGE: &str = "atoll-testbed/pause:1";

/// containerd's configuration; everything of it lies in the member's folder.
pub(crate) fn containerd(dir: &Path, registry: &Registry) -> String {
    let dir = dir.display();
    let password = registry.credentials.as_ref().map_or(String::new(), |(user, password)| {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"{}\".auth]\n  username = \"{user}\"\n  password = \"{password}\"\n",
            registry.address
        )
    });
    // No hugetlb, no OOM score, no AppArmor: a cgroup v1 without that controller, and machines that are containers. Pods' network
    // namespaces under our folder, so that they are known to be ours.
    format!(
        r#"version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{dir}/containerd/c.sock"
[ttrpc]
  address = "{dir}/containerd/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{PAUSE_IMAGE}"
  disable_hugetlb_controller = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  max_concurrent_downloads = 3
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{dir}/containerd/spec.json"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"
  {password}"#
    )
}

/// hosts.toml for every registry name: all of them are the member's own registry, over plain HTTP.
pub(crate) fn hosts(registry: &Registry) -> String {
    format!(
        "server = \"http://{0}\"\n[host.\"http://{0}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n",
        registry.address
    )
}

/// The container spec that all pods start from: the runtime's own, with the mark and the cluster's name.
pub(crate) fn spec(runtime: &Value, mark: &str, cluster: &str) -> Value {
    let mut spec = runtime.clone();
    let variables = json!([
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        format!("{}={mark}", crate::process::MARK),
        format!("CLUSTER={cluster}"),
    ]);
    spec["process"]["env"] = variables;
    spec
}

/// The pods' network: a cable a pod and routes, no bridge (else replies between two pods of one service would pass
/// below the address translation of kube-proxy).
pub(crate) fn cni(member: &MemberPlan, dir: &Path) -> String {
    json!({
        "cniVersion": "0.3.1", "name": member.namespace(),
        "plugins": [{
            "type": "ptp", "ipMasq": false, "mtu": 1500,
            "ipam": {
                "type": "host-local", "dataDir": dir.join("ipam"),
                "ranges": [[{"subnet": member.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// The kubelet's configuration.
pub(crate) fn kubelet(member: &MemberPlan, dir: &Path, cores: usize, memory_mib: u64) -> String {
    let dir = dir.display();
    let reserved_cpu = (cores as u64 * 1000).saturating_sub(u64::from(member.spec.cpu_milli));
    let reserved_memory = memory_mib.saturating_sub(u64::from(member.spec.memory_mib));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": member.node(), "port": 10250, "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{dir}/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [member.dns()], "clusterDomain": "cluster.local", "resolvConf": format!("{dir}/resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{dir}/containerd/c.sock"),
        "volumePluginDir": format!("{dir}/volume-plugins"),
        // What a nested machine with cgroup v1 has not: no slices, no enforcement, no iptables, no disk limits.
        "failCgroupV1": false, "failSwapOn": false, "cgroupDriver": "cgroupfs", "cgroupRoot": "/",
        "cgroupsPerQOS": false, "enforceNodeAllocatable": [], "makeIPTablesUtilChains": false,
        "evictionHard": {}, "localStorageCapacityIsolation": false, "imageGCHighThresholdPercent": 100,
        "systemReserved": {"cpu": format!("{reserved_cpu}m"), "memory": format!("{reserved_memory}Mi")},
        "maxPods": member.spec.pods_max, "serializeImagePulls": false,
        "registryPullQPS": 0, "eventRecordQPS": 0, "kubeAPIQPS": 200, "kubeAPIBurst": 400,
        "nodeStatusUpdateFrequency": "5s", "rotateCertificates": false,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
        "featureGates": {"KubeletCrashLoopBackOffMax": true},
    })
    .to_string()
}

/// kube-proxy's configuration.
pub(crate) fn proxy(member: &MemberPlan, dir: &Path) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clusterCIDR": member.pods(), "hostnameOverride": member.node_name(),
        "clientConnection": {"kubeconfig": dir.join("pki/proxy.kubeconfig")},
        // The limits belong to the machine and can't be set from a namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
    })
    .to_string()
}
