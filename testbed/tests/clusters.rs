//! The testbed itself, on real clusters: what it promises to those who test on it. Needs root and the built programs,
//! so it runs only when asked: `cargo test -p atoll-testbed --test clusters -- --ignored`.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use atoll_testbed::registry::Registry;
use atoll_testbed::{MemberSpec, Options, Result, Target, Testbed};
use futures::FutureExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(30);

/// Whether a TCP connection comes about within a second.
async fn connects(address: &str) -> bool {
    matches!(timeout(Duration::from_secs(1), TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Waits until a condition is as wanted.
async fn becomes(what: &str, wanted: bool, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while look().await != wanted {
        assert!(Instant::now() < end, "{what}: not {wanted} within {SOON:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn dig(server: &str, name: &str) -> String {
    let (host, port) = server.split_once(':').expect("host:port");
    let asked = ["+short", "+time=1", "+tries=1", &format!("@{host}"), "-p", port, name];
    let said = Command::new("dig").args(asked).output().await.expect("dig runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

async fn get(url: &str) -> serde_json::Value {
    let said = Command::new("curl").args(["--silent", "--max-time", "2", url]).output().await.expect("curl runs");
    serde_json::from_slice(&said.stdout).unwrap_or_default()
}

#[tokio::test]
#[ignore = "needs root: cargo test -p atoll-testbed --test clusters -- --ignored"]
async fn members_are_real_clusters_that_break_and_heal_and_leave_nothing() -> Result<()> {
    let members = MemberSpec::parse_list("dev,prod-eu:cpu=700:pods=12,dr")?;
    let testbed = Testbed::up(Options { members, ..Options::default() }).await?;
    // A failed assertion shall not leave five clusters behind either.
    let told = AssertUnwindSafe(tell(&testbed)).catch_unwind().await;
    testbed.down().await?;
    told.unwrap_or_else(|failed| std::panic::resume_unwind(failed))
}

async fn tell(testbed: &Testbed) -> Result<()> {
    let (dev, prod, dr) = (testbed.member("dev")?, testbed.member("prod-eu")?, testbed.member("dr")?);

    // Pods answer from the root namespace and from other members with their cluster; those of dr from their node alone.
    let pods = prod.pod_addresses("echo", "app=echo").await?;
    assert_eq!(pods.len(), 2);
    let url = format!("http://{}:8080/hello", pods[0]);
    let answer = get(&url).await;
    assert_eq!((answer["cluster"].as_str(), answer["path"].as_str()), (Some("prod-eu"), Some("/hello")), "{answer}");
    for neighbour in [&dev, &dr] {
        let said = neighbour.exec(&["curl", "--silent", "--max-time", "2", &url]).await?;
        assert!(said.contains("\"cluster\":\"prod-eu\""), "from {}: {said}", neighbour.name());
    }
    let hidden = dr.pod_addresses("echo", "app=echo").await?[0].to_string() + ":8080";
    assert!(!connects(&hidden).await, "dr has no routes to its pods");
    assert!(dev.exec(&["curl", "--silent", "--max-time", "1", &format!("http://{hidden}/")]).await.is_err());
    assert!(dr.exec(&["curl", "--silent", "--max-time", "2", &format!("http://{hidden}/")]).await.is_ok());

    // Each registry has the image, dev's alone the next one; prod's wants a password.
    for member in testbed.members() {
        let (one, two) =
            (member.registry().digest("shop/web", "1").await?, member.registry().digest("shop/web", "2").await?);
        assert_eq!((one.is_some(), two.is_some()), (true, member.name() == "dev"), "{}", member.name());
    }
    let stranger = Registry { credentials: None, ..prod.registry() };
    assert!(stranger.digest("shop/web", "1").await.expect_err("a password is asked").to_string().contains("401"));

    // A node is as big as asked.
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(prod.kube().await?);
    let node = nodes.get(&prod.plan().node_name()).await.expect("the node");
    let room = node.status.and_then(|status| status.allocatable).unwrap_or_default();
    assert_eq!((room["cpu"].0.as_str(), room["pods"].0.as_str()), ("700m", "12"));

    // Consul names what is no pod; the hub's API server is there, and a user of it has no rights of its own.
    let lab = testbed.lab().expect("asked for");
    assert_eq!(dig(&lab.dns(), "web.service.consul").await, lab.address().to_string());
    let hub = testbed.hub().expect("asked for");
    let alice = hub.kubeconfig_of("alice", Some("approvers"))?;
    let who = |config: &std::path::Path| {
        let mut command = Command::new(testbed.kubectl());
        command.arg("--kubeconfig").arg(config).args(["auth", "can-i", "create", "configmaps"]);
        command
    };
    let said = who(&alice).output().await.expect("kubectl runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "no");
    let said = who(&hub.kubeconfig()).output().await.expect("kubectl runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "yes");

    // Each fault breaks what it says, leaves the rest, and heals.
    let api = format!("{}:6443", prod.node());
    let pod = format!("{}:8080", pods[0]);
    let name = "echo.echo.svc.cluster.local";
    let names = async || !dig(&prod.dns(), name).await.is_empty() && dig(&prod.dns(), name).await.starts_with("10.");

    prod.cut().await?;
    assert!(!connects(&api).await && !connects(&pod).await && connects(&format!("{}:6443", dev.node())).await);
    prod.heal(&Target::Link).await?;
    becomes("the pod after the link", true, async || connects(&pod).await).await;

    prod.cut_off(&Target::ApiServer).await?;
    assert!(!connects(&api).await && connects(&pod).await);
    prod.heal(&Target::ApiServer).await?;
    assert!(connects(&api).await);

    for (broken, mended) in [("cut", "heal"), ("pause", "resume")] {
        match broken {
            "cut" => prod.cut_off(&Target::Dns).await?,
            _ => prod.pause(&Target::Dns).await?,
        }
        assert!(!names().await, "{broken} dns");
        assert!(connects(&pod).await);
        match mended {
            "heal" => prod.heal(&Target::Dns).await?,
            _ => prod.resume(&Target::Dns).await?,
        }
        becomes("DNS", true, names).await;
    }

    let list: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(prod.kube().await?, "echo");
    let all = list.list(&kube::api::ListParams::default()).await.expect("the pods").items;
    let first = pods[0].to_string();
    let there = all.iter().find(|one| one.status.as_ref().and_then(|status| status.pod_ip.as_ref()) == Some(&first));
    let target = Target::Pod(there.and_then(|one| one.metadata.name.clone()).expect("its name"));
    prod.cut_off(&target).await?;
    assert!(!connects(&pod).await && connects(&format!("{}:8080", pods[1])).await);
    prod.heal(&target).await?;
    becomes("the pod", true, async || connects(&pod).await).await;

    prod.kill(&Target::ApiServer).await?;
    assert!(!connects(&api).await, "the API server is killed");
    assert!(connects(&pod).await, "pods don't need it");
    prod.kill(&Target::Member).await?;
    assert!(!connects(&pod).await && !connects(&prod.registry().address).await);
    prod.heal(&Target::Member).await?;
    let again = prod.pod_addresses("echo", "app=echo").await?;
    assert_eq!(get(&format!("http://{}:8080/", again[0])).await["cluster"], "prod-eu");
    assert!(names().await);
    Ok(())
}
