//! An API server with our kinds, three users and (where asked for) a hub, on loopback, and the binary run against it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use atoll_apiserver::{ApiServer, Authority, Config, Context, Stamp, Storage, kubeconfig_of};
use atoll_reach::{Listen as _, RelayTable, System};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What commands are run against.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) dir: tempfile::TempDir,
    shutdown: CancellationToken,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The one document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not one document ({e}): {}\n{}", self.out, self.err))
    }

    /// Asserts how it ended, and that it said so.
    pub(crate) fn ended(&self, code: i32, says: &str) -> &Self {
        let all = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{all}");
        assert!(all.contains(says), "{says:?} is not in:\n{all}");
        self
    }
}

/// Runs the binary with nothing of this machine's own settings.
pub(crate) async fn atoll(home: &Path, args: &[&str]) -> Ran {
    Ran::of(&command(home).args(args).output().await.expect("the binary starts"))
}

pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.stdin(Stdio::null()).env("ATOLL_HOME", home).kill_on_drop(true);
    for name in ["KUBECONFIG", "ATOLL_TOKEN", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    command
}

impl World {
    /// The API server alone.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        // Several tests of one process: the first one installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let stamp = |resource: &str, annotation: &str| Stamp {
            group: "atoll.dev".into(),
            resource: resource.into(),
            annotation: annotation.into(),
        };
        let stamps =
            vec![stamp("replicationrequests", "atoll.dev/requester"), stamp("replicationapprovals", "atoll.dev/voter")];
        let server = ApiServer::open(Config { stamps, ..Config::default() }, Storage::Memory).await?;
        let authority = Authority::new("test")?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let users = [
            ("atoll", "admin", authority.user("admin", &["system:masters"])?),
            ("atoll-dev", "dev", authority.user("dev", &["developers"])?),
            ("atoll-approver", "approver", authority.user("approver", &["approvers"])?),
        ];
        let contexts: Vec<Context<'_>> =
            users.iter().map(|(name, user, identity)| Context { name, user, identity }).collect();
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("config"), kubeconfig_of(&url, authority.ca_pem(), &contexts))?;
        let shutdown = CancellationToken::new();
        let (serving, tls, end) = (server.clone(), authority.tls(&["127.0.0.1", "localhost"])?, shutdown.clone());
        let task = tokio::spawn(async move { drop(serving.serve(listener, tls, end).await) });
        let world = Self { server, dir, shutdown, _tasks: vec![AbortOnDropHandle::new(task)] };
        world.apply_all(&objects()).await?;
        Ok(world)
    }

    /// With a hub that listens on loopback.
    pub(crate) async fn with_hub() -> anyhow::Result<Self> {
        let mut world = Self::new().await?;
        let listener = System::default().tcp("127.0.0.1:0".parse()?).await?;
        let config = atoll_federation::Config {
            advertise: listener.local_addr().to_string(),
            sites: Vec::new(),
            ..atoll_federation::Config::default()
        };
        let (started, up) = tokio::sync::oneshot::channel();
        let resources = atoll_federation::Resources {
            client: world.server.client(),
            listener,
            webhook: None,
            console: None,
            connect: Arc::new(System::default()),
            relays: RelayTable::default(),
            metrics: prometheus::Registry::new(),
            push: Arc::new(NoPush),
            view: Arc::new(atoll_federation::NoView),
            started: Some(started),
        };
        let end = world.shutdown.clone();
        let hub = tokio::spawn(async move { drop(Box::pin(atoll_federation::run(config, resources, end)).await) });
        world._tasks.push(AbortOnDropHandle::new(hub));
        up.await.context("the hub comes up")?;
        Ok(world)
    }

    /// Runs the binary as the administrator.
    pub(crate) async fn atoll(&self, args: &[&str]) -> Ran {
        self.atoll_as("atoll", args).await
    }

    /// Runs the binary as somebody: a context of the kubeconfig.
    pub(crate) async fn atoll_as(&self, context: &str, args: &[&str]) -> Ran {
        let kubeconfig = self.kubeconfig();
        let mut all = vec!["--kubeconfig", kubeconfig.to_str().expect("a plain path"), "--context", context];
        all.extend(args);
        atoll(&self.dir.path().join("home"), &all).await
    }

    /// Starts the binary as the administrator; it ends with the handle.
    pub(crate) fn start(&self, args: &[&str]) -> anyhow::Result<tokio::process::Child> {
        let mut command = command(&self.dir.path().join("home"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// Writes a file into the world's directory.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path.display().to_string()
    }

    pub(crate) async fn apply_all(&self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            apply(&self.server.client(), object).await?;
        }
        Ok(())
    }

    /// Makes a request as `context`'s user, its images resolved already.
    pub(crate) async fn waiting_request(&self, name: &str, user: &str) -> anyhow::Result<()> {
        let client = self.server.client_as(user, &["system:masters"]);
        let request = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationRequest",
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"policy": "dev-to-prod", "images": ["shop/web:2"]}});
        let api = api(&client, &request);
        api.create(&PostParams::default(), &serde_json::from_value(request)?).await?;
        let status = json!({"status": {"state": "PendingApproval", "closure": format!("sha256:{}", "0".repeat(64))}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Says of a vote what a hub would.
    pub(crate) async fn judge_vote(&self, name: &str, counts: &str, message: &str) -> anyhow::Result<()> {
        let vote = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationApproval", "metadata": {"namespace": "shop"}});
        let condition = json!({"type": "Counts", "status": counts, "reason": "Judged", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"conditions": [condition]}});
        let api = api(&self.server.client(), &vote);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }
}

/// Never asked: no member is of mode Push here.
struct NoPush;

#[async_trait::async_trait]
impl atoll_federation::StartPush for NoPush {
    async fn run(&self, member: atoll_federation::PushMember, _: CancellationToken) -> Result<(), String> {
        Err(format!("{} was not expected", member.name))
    }
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = word("/apiVersion").split_once('/').unwrap_or(("", word("/apiVersion")));
    let gvk = kube::core::GroupVersionKind::gvk(group, version, word("/kind"));
    let resource = kube::api::ApiResource::from_gvk(&gvk);
    match object.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let name = object["metadata"]["name"].as_str().context("an object has a name")?;
    let params = PatchParams::apply("test").force();
    api(client, object).patch(name, &params, &Patch::Apply(object)).await.with_context(|| object.to_string())?;
    if object["status"].is_object() {
        let status = json!({"status": object["status"]});
        api(client, object).patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    Ok(())
}

/// Our kinds, a namespace, what its users may do, and a policy.
fn objects() -> Vec<Value> {
    let crds = atoll_api::kinds::crds().into_iter().chain(atoll_api::kinds::standard_crds());
    let mut all: Vec<Value> = crds.map(|crd| serde_json::to_value(crd).expect("plain JSON")).collect();
    let rbac = "rbac.authorization.k8s.io";
    let role = |name: &str, group: &str, rules: Value| {
        [
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": rbac, "kind": "Group", "name": group}]}),
        ]
    };
    let may =
        |resources: Value, verbs: Value| json!({"apiGroups": ["atoll.dev"], "resources": resources, "verbs": verbs});
    let look = may(json!(["*"]), json!(["get", "list", "watch"]));
    all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    all.extend(role("dev", "developers", json!([look, may(json!(["replicationrequests"]), json!(["create"]))])));
    all.extend(role("approver", "approvers", json!([look, may(json!(["replicationapprovals"]), json!(["create"]))])));
    all.push(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationPolicy",
        "metadata": {"name": "dev-to-prod", "namespace": "shop"},
        "spec": {"from": "dev", "to": "prod-eu", "repositories": ["shop/*"],
            "approval": {"groups": [{"name": "approvers", "votes": 1}]}}}));
    all
}
