//! The Gateway API's conformance suite against a whole cluster whose API server is the hub's.
//!
//! ```text
//! namespace of the member ── kube-apiserver, kubelet, pods … ◄── hub, gateway (atoll), suite (Go)
//!                         └─ local 10.B.240.0/24: an address for every Gateway; 10.B.241.1 is nobody's
//! east, west, far         ── members of that hub, clusters as whole as it: what ServiceImports lead to
//! ```
//! Beside the suite's own tests there are ours in its form (`testbed/go/conformance`). In: the atoll binary, tests by name. Out: the suite's report and what failed. Features are what the GatewayClass says; nothing is skipped.

mod members;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::home::write;
use crate::image::Image;
use crate::member::{Member, READY};
use crate::programs::Programs;
use crate::shell::{run, wait};
use crate::spec::MemberSpec;
use crate::testbed::{Options, Testbed};

/// The member's name.
pub const MEMBER: &str = "conformance";
/// All that an Atoll gateway is for.
pub const PROFILES: &str =
    "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP,GATEWAY-EXPERIMENTAL,GATEWAY-SERVICEIMPORT";

/// Twenty of the suite's own tests and four of ours, for every day.
pub const SMOKE: [&str; 24] = [
    "BackendTLSPolicy",
    "GRPCExactMethodMatching",
    "GRPCRouteHeaderMatching",
    "GatewayFrontendClientCertificateValidation",
    "GatewayInfrastructure",
    "GatewayInvalidTLSConfiguration",
    "GatewayModifyListeners",
    "GatewayStaticAddresses",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteCORS",
    "HTTPRouteExternalAuthHTTP",
    "HTTPRouteHTTPSListener",
    "HTTPRouteMatching",
    "HTTPRouteRedirectPath",
    "HTTPRouteRequestMirror",
    "HTTPRouteRetry",
    "HTTPRouteSessionPersistence",
    "ListenerSetHTTPRouting",
    "ServiceImportSetWideEndpoints",
    "ServiceImportServiceStaysLocal",
    "TCPRouteWeightedRouting",
    "TLSRouteSimpleSameNamespace",
    "TLSRouteTerminateSimpleSameNamespace",
    "UDPRoute",
];

/// The names under which the suite's manifests ask for images, and the programs that are in them.
const IMAGES: &[(&str, &str)] = &[
    ("registry.k8s.io/gateway-api/echo-basic:v1.5.1", "echo-basic"),
    ("registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.2", "echo-basic"),
    ("registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3", "echo-basic"),
    ("registry.k8s.io/coredns/coredns:v1.12.2", "coredns"),
];

/// What to run.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// The binary under test.
    pub atoll: PathBuf,
    /// Tests by name; none: all that the features ask for.
    pub tests: Vec<String>,
    /// Profiles, separated by commas.
    pub profiles: String,
    /// Where the report goes; for all tests only.
    pub report: PathBuf,
    /// Leave the cluster up, for the next run.
    pub keep: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: Vec<String>,
    /// Tests that failed.
    pub failed: Vec<String>,
    /// Tests that the features did not ask for.
    pub skipped: Vec<String>,
    /// What everything said.
    pub log: PathBuf,
}

impl Conformance {
    /// Brings the cluster up, or takes the one that is, and runs the suite.
    ///
    /// # Errors
    /// The cluster, hub or gateway does not come up. Failed tests are no error.
    pub async fn run(&self) -> Result<Outcome> {
        let programs = Programs::conformance(|_| {}).await?;
        let spec = MemberSpec { pods_max: 150, ..MemberSpec::named(MEMBER) };
        let members = std::iter::once(spec).chain(members::specs()).collect();
        let options = Options { members, hub: false, lab: false, keep: self.keep };
        let testbed = Testbed::attach_or_up(options).await?;
        let ran = self.on(&testbed, &testbed.member(MEMBER)?, &programs).await;
        if !self.keep {
            testbed.down().await?;
        }
        ran
    }

    async fn on(&self, testbed: &Testbed, member: &Member<'_>, programs: &Programs) -> Result<Outcome> {
        bring_images(member, programs).await?;
        let block = member.plan().block.0;
        let pool = format!("10.{block}.240.0/24");
        let _ = member.exec(&["ip", "route", "replace", "local", &pool, "dev", "lo"]).await?;
        let dir = member.dir().join("atoll");
        let _ = std::fs::remove_dir_all(&dir);
        let _hub = self.start(member, &dir, "hub", 7071, &hub_file(member, &dir)).await?;
        let gateway = gateway_file(member, &dir, &pool);
        let _gateway = self.start(member, &dir, "gateway", 7073, &gateway).await?;
        accepted(member, programs).await?;
        members::join(testbed, programs).await?;
        self.suite(member, programs, &dir, &members::said(testbed)?).await
    }

    /// Starts a part of atoll in the member's namespace and waits until it is ready.
    async fn start(&self, member: &Member<'_>, dir: &Path, part: &str, admin: u16, file: &str) -> Result<Child> {
        let config = dir.join(format!("{part}.yaml"));
        write(&config, file)?;
        let mut command = member.command(&self.atoll);
        command.arg(part).arg("--config").arg(&config).env("ATOLL_HOME", dir.join("home"));
        command.env("ATOLL_LOG", "info,kube_client=off,atoll_gateway=debug");
        let child = spawn(command, &dir.join(format!("{part}.log")), part)?;
        let url = format!("http://127.0.0.1:{admin}/readyz");
        wait(&format!("{part} is ready"), READY, || async {
            let asked = member.exec(&["curl", "--silent", "--fail", "--max-time", "2", &url]).await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(child)
    }

    async fn suite(&self, member: &Member<'_>, programs: &Programs, dir: &Path, members: &str) -> Result<Outcome> {
        let block = member.plan().block.0;
        let log = dir.join("suite.log");
        let mut command = member.command(programs.path("conformance"));
        command.env("KUBECONFIG", member.kubeconfig()).current_dir(dir);
        command.env("ATOLL_MEMBERS", members).env("ATOLL_NODE", member.node().to_string());
        let names = if self.tests.is_empty() { String::new() } else { format!("/^({})$", self.tests.join("|")) };
        command.args([format!("-test.run=^TestConformance${names}"), "-test.v".into(), "-test.timeout=100m".into()]);
        command.args([
            "--gateway-class=atoll".to_owned(),
            format!("--conformance-profiles={}", self.profiles),
            format!("--usable-address=10.{block}.240.200"),
            format!("--unusable-address=10.{block}.241.1"),
            format!("--cleanup-base-resources={}", !self.keep),
            "--organization=atoll".into(),
            "--project=atoll".into(),
            "--url=https://atoll.dev".into(),
            format!("--version=v{}", env!("CARGO_PKG_VERSION")),
            "--contact=https://atoll.dev".into(),
        ]);
        if self.tests.is_empty() {
            // The suite runs elsewhere: a path of the caller's own.
            let report = std::path::absolute(&self.report).map_err(Error::on(&self.report))?;
            command.arg(format!("--report-output={}", report.display()));
        }
        let status = spawn(command, &log, "conformance")?.wait().await.map_err(Error::io("the suite"))?;
        let said = std::fs::read_to_string(&log).map_err(Error::on(&log))?;
        let mut outcome = Outcome { log: log.clone(), ..Outcome::default() };
        for line in said.lines() {
            // Tests of the suite are one level below its own.
            let Some(rest) = line.strip_prefix("    --- ") else { continue };
            let Some((word, name)) = rest.split_once(": TestConformance/") else { continue };
            let name = name.split(' ').next().unwrap_or_default().to_owned();
            match word {
                "PASS" => outcome.passed.push(name),
                "FAIL" => outcome.failed.push(name),
                _ => outcome.skipped.push(name),
            }
        }
        if outcome.passed.is_empty() && !status.success() {
            let last: Vec<&str> = said.lines().rev().take(15).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(Error::Refused(format!("the suite ended with {status}; it said last:\n{last}")));
        }
        Ok(outcome)
    }
}

pub(crate) fn spawn(mut command: Command, log: &Path, name: &str) -> Result<Child> {
    let file = std::fs::File::create(log).map_err(Error::on(log))?;
    let again = file.try_clone().map_err(Error::on(log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(again);
    command.spawn().map_err(Error::io(format!("run `{name}`")))
}

/// Makes and imports the images that the member lacks.
async fn bring_images(member: &Member<'_>, programs: &Programs) -> Result<()> {
    let socket = member.dir().join("containerd/c.sock").display().to_string();
    let there = run(&["ctr", "--address", &socket, "--namespace", "k8s.io", "images", "list", "--quiet"]).await?;
    for (name, program) in IMAGES.iter().filter(|(name, _)| !there.lines().any(|line| line == *name)) {
        let image = Image::of_program(&programs.path(program), program, &[])?;
        let archive = member.dir().join("image.tar");
        write(&archive, image.docker_archive(name))?;
        member.import(&archive).await?;
        std::fs::remove_file(&archive).map_err(Error::on(&archive))?;
    }
    Ok(())
}

fn hub_file(member: &Member<'_>, dir: &Path) -> String {
    let (node, kubeconfig) = (member.node(), member.kubeconfig());
    format!(
        "apex: conformance.test\nembedded: false\ndataDir: {}/hub\nkubeconfig: {}\n\
         listen: {{hub: '{node}:7443', console: '127.0.0.1:7070', admin: '127.0.0.1:7071'}}\n",
        dir.display(),
        kubeconfig.display()
    )
}

fn gateway_file(member: &Member<'_>, dir: &Path, pool: &str) -> String {
    let (node, kubeconfig) = (member.node(), member.kubeconfig());
    format!(
        "apex: conformance.test\nsite: gateway\nhub: '{node}:7443'\ndataDir: {}/gateway\nkubeconfig: {}\n\
         listen: {{http: '127.0.0.1:8080', https: '127.0.0.1:8443', gatewayRelay: '127.0.0.1:7454', admin: '127.0.0.1:7073'}}\n\
         gateway: {{addresses: ['{pool}']}}\n",
        dir.display(),
        kubeconfig.display()
    )
}

/// Waits until the GatewayClass says what can be tested.
async fn accepted(member: &Member<'_>, programs: &Programs) -> Result<()> {
    let kubectl = programs.path("kubectl").display().to_string();
    let file = format!("--kubeconfig={}", member.kubeconfig().display());
    wait("GatewayClass atoll is accepted", Duration::from_secs(60), || async {
        let said = run(&[&kubectl, &file, "get", "gatewayclass", "atoll", "-o", "json"]).await;
        let class: Value = serde_json::from_str(&said.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let features = class["status"]["supportedFeatures"].as_array().map_or(0, Vec::len);
        if features > 0 { Ok(()) } else { Err("it has no features yet".to_owned()) }
    })
    .await
}
