//! `atoll up` as people start it: what is ready answers, what is broken heals, Ctrl-C leaves nothing, and bad input is told what is bad.
//! Every federation has its own home and free ports.

#[path = "up/few.rs"]
mod few;
#[path = "up/strangers.rs"]
mod strangers;
#[path = "up/subsets.rs"]
mod subsets;
#[path = "up/world.rs"]
mod world;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use atoll_api::kinds::gateway::HTTPRoute;
use atoll_api::kinds::{Cluster, ReplicationApproval, ReplicationRequest, RequestState};
use hickory_proto::op::ResponseCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use world::{FREE, Place, Up, client, until};

const WEB: &str = "web.shop.svc.atoll.internal.";
const SHOP: &str = "shop.example.com";

fn install_provider() {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_answers_what_is_broken_heals_and_nothing_is_left() -> Result<()> {
    install_provider();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let up = place.up(&["--config", &config.display().to_string()]).await?;
    let kubeconfig = PathBuf::from(up.text("kubeconfig"));
    assert!(
        kubeconfig.is_absolute() && fs::metadata(&kubeconfig)?.permissions().mode() & 0o077 == 0,
        "keys are private"
    );
    assert_eq!(fs::canonicalize(place.home().join("config"))?, fs::canonicalize(&kubeconfig)?);
    let clusters: Api<Cluster> = Api::all(client(&kubeconfig, "atoll").await?);
    everybody_is_known_and_named(&up, &clusters).await?;
    let near = until("the nearest pods", async || {
        let answer = up.dig(WEB).await?;
        ensure!(answer.0 == ResponseCode::NoError && !answer.1.is_empty(), "{answer:?}");
        Ok(answer.1)
    })
    .await;
    answered_by(&up, "prod-eu").await;
    the_request_waits_for_somebody_else(&kubeconfig).await?;
    without_the_hub_others_are_found(&place, &up, &near).await?;
    until("the hub knows everybody again", async || {
        let ready = clusters.list(&ListParams::default()).await?.items.into_iter().filter(is_ready).count();
        ensure!(ready == 5, "{ready} are ready");
        Ok(())
    })
    .await;
    answered_by(&up, "prod-eu").await;
    changes_are_seen_again(&up, &kubeconfig).await?;
    place.ended(&["demo", "break", "nowhere"]).await?.says("nobody", 1, &["nowhere", "prod-us", "gateway"]);

    assert_eq!(up.interrupt().await?, Some(0));
    assert!(!place.home().exists(), "left behind: {:?}", fs::read_dir(place.home())?.collect::<Vec<_>>());
    place.ended(&["demo", "break", "hub"]).await?.says("nobody runs", 4, &["no `atoll up` runs"]);
    Ok(())
}

async fn everybody_is_known_and_named(up: &Up, clusters: &Api<Cluster>) -> Result<()> {
    let members = up.ready["members"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = members.iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(names, ["dev", "test", "prod-eu", "prod-us", "dr"]);
    assert_eq!(clusters.list(&ListParams::default()).await?.items.len(), 5);
    for (member, said) in names.iter().zip(&members) {
        let (code, addresses) = up.dig(&format!("web.shop.svc.{member}.atoll.internal.")).await?;
        assert!(code == ResponseCode::NoError && addresses.len() == 1, "{member}: {code} {addresses:?}");
        let own = PathBuf::from(said["kubeconfig"].as_str().unwrap_or_default());
        client(&own, member).await?.apiserver_version().await?;
    }
    assert_eq!(up.dig("web.shop.svc.nowhere.atoll.internal.").await?.0, ResponseCode::NXDomain);
    Ok(())
}

/// Waits until the gateway answers from that cluster.
async fn answered_by(up: &Up, cluster: &str) {
    until(&format!("the gateway answers from {cluster}"), async || {
        let echo = up.curl(SHOP).await?;
        ensure!(echo["cluster"] == cluster, "{echo}");
        Ok(())
    })
    .await;
}

/// Than who made it.
async fn the_request_waits_for_somebody_else(kubeconfig: &Path) -> Result<()> {
    let requests: Api<ReplicationRequest> = Api::namespaced(client(kubeconfig, "atoll").await?, "shop");
    let closure = until("the request waits for a vote", async || {
        let status = requests.get("web-1").await?.status.unwrap_or_default();
        ensure!(status.state == RequestState::PendingApproval, "{status:?}");
        assert_eq!(status.requester.as_deref(), Some("dev"));
        status.closure.ok_or_else(|| anyhow::anyhow!("no closure"))
    })
    .await;
    let vote: ReplicationApproval = serde_json::from_value(json!({"metadata": {"name": "web-1-x"},
        "spec": {"request": "web-1", "decision": "Approve", "closure": closure}}))?;
    let as_dev =
        Api::namespaced(client(kubeconfig, "atoll-dev").await?, "shop").create(&PostParams::default(), &vote).await;
    assert!(matches!(&as_dev, Err(kube::Error::Api(status)) if status.code == 403), "{as_dev:?}");
    Api::namespaced(client(kubeconfig, "atoll-approver").await?, "shop").create(&PostParams::default(), &vote).await?;
    until("the image is copied", async || {
        let status = requests.get("web-1").await?.status.unwrap_or_default();
        ensure!(status.state == RequestState::Succeeded, "{status:?}");
        Ok(())
    })
    .await;
    Ok(())
}

/// The data planes go on without the hub, also when they begin anew, and notice themselves that a cluster is gone.
async fn without_the_hub_others_are_found(place: &Place, up: &Up, near: &[String]) -> Result<()> {
    place.ended(&["demo", "break", "hub"]).await?.says("hub", 0, &["stopped"]);
    place.ended(&["demo", "break", "hub"]).await?.says("hub twice", 1, &["already"]);
    for part in ["dns", "gateway"] {
        place.ended(&["demo", "break", part]).await?.says(part, 0, &["stopped"]);
        place.ended(&["demo", "heal", part]).await?.says(part, 0, &["again"]);
    }
    place.ended(&["demo", "break", "prod-eu"]).await?.says("prod-eu", 0, &["cut off"]);
    until("DNS answers from elsewhere", async || {
        let answer = up.dig(WEB).await?;
        ensure!(answer.0 == ResponseCode::NoError && !answer.1.is_empty(), "{answer:?}");
        ensure!(!answer.1.iter().any(|address| near.contains(address)), "{answer:?}");
        Ok(())
    })
    .await;
    answered_by(up, "prod-us").await;
    place.ended(&["demo", "heal", "prod-eu"]).await?.says("prod-eu", 0, &["connected again"]);
    place.ended(&["demo", "heal", "hub"]).await?.says("hub", 0, &["again"]);
    Ok(())
}

/// What is made after the hub began anew, and what is taken away: the gateway had followed the hub's API before.
async fn changes_are_seen_again(up: &Up, kubeconfig: &Path) -> Result<()> {
    let routes: Api<HTTPRoute> = Api::namespaced(client(kubeconfig, "atoll").await?, "shop");
    let backend = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "web", "port": 80});
    let later =
        serde_json::from_value(json!({"metadata": {"name": "later"}, "spec": {"parentRefs": [{"name": "shop"}],
        "hostnames": ["later.example.com"], "rules": [{"backendRefs": [backend]}]}}))?;
    routes.create(&PostParams::default(), &later).await?;
    until("a route of after the restart is served", async || up.curl("later.example.com").await).await;
    routes.delete("later", &DeleteParams::default()).await?;
    until("a route that was deleted is not", async || {
        let refused = up.curl("later.example.com").await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refused.starts_with("HTTP/1.1 404"), "{refused}");
        Ok(())
    })
    .await;
    Ok(())
}

fn is_ready(cluster: &Cluster) -> bool {
    let conditions = cluster.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_keeps_the_state_and_lets_one_in_at_a_time() -> Result<()> {
    install_provider();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let (config, data) = (config.display().to_string(), place.at("data").display().to_string());
    let words = ["--members", "0", "--config", &config, "--data-dir", &data];
    let up = place.up(&words).await?;
    assert_eq!(up.ready["members"], json!([]));
    let token = place.ended(&["token", "create", "edge"]).await?;
    token.says("token", 0, &["atoll join 127.0.0.1:", "--token atoll1.edge."]);
    let kubeconfig = place.at("data/kubeconfig");
    let clusters: Api<Cluster> = Api::all(client(&kubeconfig, "atoll").await?);
    let edge = serde_json::from_value(json!({"metadata": {"name": "edge"}, "spec": {"environment": "edge"}}))?;
    clusters.create(&PostParams::default(), &edge).await?;
    assert_eq!(fs::metadata(place.at("data/hub.redb"))?.permissions().mode() & 0o077, 0, "the store holds keys");

    let other = Place::new()?;
    let second = other.ended(&["up", "--members", "0", "--config", &config, "--data-dir", &data]).await?;
    second.says("a second one", 1, &["in use by another process", &data]);
    assert!(!other.home().exists(), "who is refused leaves nothing either");
    let again = place.ended(&["up", "--members", "0", "--config", &config, "--data-dir", &data]).await?;
    again.says("a second one of the same home", 1, &["in use by another process", &data]);
    for left in ["home/config", "data/control.sock", "data/ready.json"] {
        assert!(place.at(left).exists(), "{left} is the first one's");
    }
    place.ended(&["get", "clusters"]).await?.says("the first goes on", 0, &["edge"]);

    let snapshot = save_a_snapshot(&place).await?;
    let restore = ["hub", "restore", snapshot.as_str(), "--data-dir", &data];
    place.ended(&restore).await?.says("a restore under a running hub", 1, &["in use by another process"]);

    let ca = |text: String| text.lines().find(|l| l.contains("certificate-authority-data")).map(str::to_owned);
    let before = ca(fs::read_to_string(&kubeconfig)?);
    assert_eq!(up.interrupt().await?, Some(0));
    assert!(!place.home().exists() && !place.at("data/control.sock").exists() && kubeconfig.exists());
    let up = place.up(&words).await?;
    assert_eq!(ca(fs::read_to_string(&kubeconfig)?), before, "whoever trusts the API server goes on trusting it");
    place.ended(&["get", "clusters"]).await?.says("kept", 0, &["edge"]);
    assert_eq!(up.interrupt().await?, Some(0));

    let store = place.at("data/hub.redb");
    what_happened_to_the_store_is_told(&place, &store, &words).await?;
    // A snapshot mends it. Who obeyed the hub since obeys the restored one, too: its epoch is greater.
    let up = place.up(&words).await?;
    let before = epoch(&kubeconfig).await?;
    assert_eq!(up.interrupt().await?, Some(0));
    damage(&store)?;
    place.ended(&["hub", "restore", &place.at("nothing").display().to_string(), "--data-dir", &data]).await?.says(
        "no file",
        1,
        &["nothing"],
    );
    place.ended(&restore).await?.says("a restore", 0, &["is restored from"]);
    assert!(place.at("data/hub.before-restore").exists(), "what was there is kept");
    let up = place.up(&words).await?;
    place.ended(&["get", "clusters"]).await?.says("restored", 0, &["edge"]);
    assert!(epoch(&kubeconfig).await? > before + 1);
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}

async fn save_a_snapshot(place: &Place) -> Result<String> {
    let (snapshot, saved) = (place.at("snapshot.redb").display().to_string(), place.at("snapshot.redb"));
    place.ended(&["hub", "snapshot", &snapshot]).await?.says("a snapshot", 0, &["holds all Secrets"]);
    assert_eq!(fs::metadata(&saved)?.permissions().mode() & 0o077, 0, "and so its owner alone reads it");
    place.ended(&["hub", "snapshot", &snapshot]).await?.says(
        "never over another file",
        1,
        &["snapshot.redb", "exists"],
    );
    let as_dev =
        place.ended(&["hub", "snapshot", &place.at("no").display().to_string(), "--context", "atoll-dev"]).await?;
    as_dev.says("a snapshot for a developer", 3, &["only the administrator"]);
    Ok(snapshot)
}

/// And the file is left as it is.
async fn what_happened_to_the_store_is_told(place: &Place, store: &Path, words: &[&str]) -> Result<()> {
    let whole = fs::read(store)?;
    let (damage, foreign): ([&str; 2], _) = (["hub.redb", "atoll hub restore"], ["hub.redb", "not a data file"]);
    for (case, spoil, said) in [
        ("corrupt", self::damage as fn(&Path) -> Result<()>, damage),
        ("foreign", overwrite, foreign),
        ("cut in the middle", |store| cut(store, 2), damage),
        ("cut to its first page", |store| cut(store, 256), damage),
        ("cut to nothing", |store| cut(store, u64::MAX), damage),
    ] {
        spoil(store)?;
        let held = fs::read(store)?;
        place.ended(&[&["up"], words].concat()).await?.says(case, 1, &said);
        assert!(fs::read(store)? == held, "{case}: the file is another");
        fs::write(store, &whole)?;
    }
    Ok(())
}

/// The hub's epoch.
async fn epoch(kubeconfig: &Path) -> Result<u64> {
    let maps: Api<ConfigMap> = Api::namespaced(client(kubeconfig, "atoll").await?, "atoll-system");
    Ok(maps.get("atoll-hub").await?.data.unwrap_or_default()["epoch"].parse()?)
}

fn damage(store: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(store)?;
    let len = file.metadata()?.len();
    Ok(file.write_all_at(&vec![0xa5; usize::try_from(len - 4096)?], 4096)?)
}

/// Leaves one part in so many of it.
fn cut(store: &Path, parts: u64) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(store)?;
    Ok(file.set_len(file.metadata()?.len() / parts)?)
}

fn overwrite(store: &Path) -> Result<()> {
    Ok(fs::write(store, "Dear diary, today I did not back anything up.\n".repeat(1000))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_is_bad_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let free = place.file("free.yaml", FREE)?.display().to_string();
    let file = |name: &str, text: &str| place.file(name, text).map(|file| file.display().to_string());
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let api = file("api.yaml", &FREE.replace("api: '127.0.0.1:0'", &format!("api: '{}'", taken.local_addr()?)))?;
    let dns_taken = UdpSocket::bind("127.0.0.1:0")?;
    let dns = file("dns.yaml", &FREE.replace("dns: '127.0.0.1:0'", &format!("dns: '{}'", dns_taken.local_addr()?)))?;
    let unknown = file("unknown.yaml", "listen: {dnss: x}\n")?;
    let value = file("value.yaml", "listen: {dns: here}\n")?;
    let theirs = file("theirs.yaml", "kubeconfig: /etc/kubernetes/admin.conf\n")?;
    fs::create_dir(place.at("photos"))?;
    file("photos/cat.jpg", "meow")?;
    let photos = place.at("photos").display().to_string();
    let deep = place.at(&"d".repeat(110)).display().to_string();
    for (case, words, code, said) in [
        ("no file", vec!["--config", "/nowhere.yaml"], 2, vec!["/nowhere.yaml"]),
        ("unknown key", vec!["--config", &unknown], 2, vec!["unknown.yaml", "dnss", "line 1"]),
        ("bad value", vec!["--config", &value], 2, vec!["value.yaml", "listen.dns", "`here`", "127.0.0.1:5353"]),
        ("another API server", vec!["--config", &theirs], 2, vec!["atoll hub"]),
        ("port taken", vec!["--config", &api], 1, vec!["listen.api", "another program"]),
        ("UDP port taken", vec!["--config", &dns], 1, vec!["listen.dns", "another program"]),
        ("no name", vec!["--config", &free, "--members", "dev,Prod"], 2, vec!["--members", "Prod"]),
        ("reserved name", vec!["--config", &free, "--members", "svc"], 2, vec!["--members", "svc"]),
        ("named twice", vec!["--config", &free, "--members", "a,b,a"], 2, vec!["`a` is named twice"]),
        ("directory of others", vec!["--config", &free, "--data-dir", &photos], 2, vec!["cat.jpg", "empty directory"]),
        ("directory too deep", vec!["--config", &free, "--data-dir", &deep], 2, vec!["shorter directory"]),
        ("no file but a folder", vec!["--config", &photos], 2, vec![photos.as_str(), "directory"]),
        ("empty name", vec!["--config", &free, "--members", ""], 2, vec!["--members", "1 to 49"]),
        ("directory is a file", vec!["--config", &free, "--data-dir", &free], 2, vec!["is a file"]),
    ] {
        let mut all = vec!["up"];
        all.extend(words);
        place.ended(&all).await?.says(case, code, &said);
        assert!(!place.home().exists(), "{case}: left behind");
    }
    let small = place.at("small").display().to_string();
    let full = place.ended_within(64, &["up", "--members", "0", "--config", &free, "--data-dir", &small]).await?;
    full.says("full disk", 1, &["hub.redb"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_refuse_what_they_cannot_run_with() -> Result<()> {
    let place = Place::new()?;
    let file = |name: &str, text: &str| place.file(name, text).map(|file| file.display().to_string());
    let bare = file("bare.yaml", FREE)?;
    let both = file("both.yaml", "embedded: true\nkubeconfig: /k\n")?;
    let nothing = file("nothing.yaml", "embedded: false\n")?;
    let broken = file("broken.kubeconfig", "apiVersion: v1\nkind: Config\ncurrent-context: x\n")?;
    let real = file("real.yaml", &format!("{FREE}kubeconfig: {broken}\n"))?;
    for (words, code, said) in [
        (vec!["hub", "--config", &bare], 2, vec!["dataDir"]),
        (vec!["hub", "--config", &both], 2, vec!["kubeconfig", "embedded"]),
        (vec!["hub", "--config", &nothing], 2, vec!["embedded: false"]),
        (vec!["hub", "--config", &real], 2, vec!["broken.kubeconfig"]),
        (vec!["dns", "--config", &bare], 2, vec!["kubeconfig"]),
        (vec!["gateway", "--config", &bare], 2, vec!["kubeconfig"]),
        (vec!["gateway", "--config", &real], 2, vec!["broken.kubeconfig"]),
        (vec!["agent", "--config", &bare], 2, vec!["--kubeconfig"]),
    ] {
        place.ended(&words).await?.says(&words.join(" "), code, &said);
    }
    Ok(())
}
