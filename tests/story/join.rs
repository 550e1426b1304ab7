//! Join: a token becomes a certificate; by an agent inside the member, beside it, inside the hub, or by name alone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::bed::Bed;
use crate::objects;
use crate::process::Process;
use crate::said::{Said, run, until};
use crate::world::{Access, Ground, MEMBERS, World, condition, text, write};

/// The member that the hub's own API server becomes for a while.
const SELF: &str = "self";
/// The image of the agents that run in their members.
const IMAGE: &str = "atoll:story";

/// Environment, region and zone of a member.
const STANDING: [(&str, [&str; 3]); 5] = [
    ("dev", ["dev", "eu-central", "eu-central-1b"]),
    ("test", ["test", "eu-central", "eu-central-1b"]),
    ("prod-eu", ["prod", "eu-central", "eu-central-1a"]),
    ("prod-us", ["prod", "us-east", "us-east-1a"]),
    ("dr", ["dr", "eu-west", "eu-west-1a"]),
];

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Join");
    for namespace in ["shop", objects::NAMESPACE] {
        world.apply(&objects::namespace(namespace)).await?;
    }
    match &world.ground {
        Ground::Bed(bed) => members(world, bed).await?,
        Ground::Demo(_) => {
            world.leaves_out("Consul as a member of which only names are known");
            world.leaves_out("`atoll join --install`: agents of demo members run inside `atoll up`");
        }
    }
    for member in MEMBERS {
        ready(world, member, 90).await?;
    }
    world.proves(format!("{} are Ready", MEMBERS.join(", ")));
    tokens(world).await
}

/// Waits until a member is Ready.
pub(crate) async fn ready(world: &World, member: &str, within: u64) -> Result<()> {
    until(&format!("{member} is Ready"), Duration::from_secs(within), async || {
        let cluster = world.get("cluster", "default", member).await?;
        let (status, reason, message) = condition(&cluster, "Ready");
        ensure!(status == "True", "Ready={status} {reason}: {message}");
        Ok(())
    })
    .await
}

/// `atoll token create`: one line, its hub and its token.
async fn token(world: &World, member: &str, flags: &[&str]) -> Result<(String, String)> {
    let line = world.atoll(&[&["token", "create", member], flags].concat()).await?.ok()?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["atoll", "join", hub, "--token", token] if line.trim_end().lines().count() == 1 => {
            Ok(((*hub).to_owned(), (*token).to_owned()))
        }
        _ => bail!("`atoll token create` should print one line `atoll join HUB --token T`, not: {line}"),
    }
}

/// `atoll join` into the API server of `access`.
async fn join(world: &World, hub: &str, token: &str, access: &Access, flags: &[&str]) -> Result<Said> {
    let mut command: Command = world.atoll_command(&["join", hub, "--token", token]);
    command.args(access.words()).args(flags);
    run(command).await
}

/// What a token is good for, with the hub's own API server as the member: it has never joined.
async fn tokens(world: &World) -> Result<()> {
    let own = &world.people.admin;
    // Kept free of workloads: it is here for its certificate alone.
    let taint = "taints: [{key: story, effect: NoSchedule}]";
    world
        .apply(&format!(
            "apiVersion: atoll.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: {SELF}}}\nspec: {{environment: {SELF}, {taint}}}\n"
        ))
        .await?;
    let (hub, expired) = token(world, SELF, &["--ttl", "1s"]).await?;
    // Its life is what is tested.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let here = &["--foreground"];
    let refused = |said: Said, word: &str| {
        ensure!(said.code != 0 && said.err.contains(word), "should fail with `{word}`: {said:?}");
        Ok(())
    };
    refused(join(world, &hub, &expired, own, here).await?, "expired")?;
    world.proves("an expired token is refused");
    refused(join(world, &hub, "nonsense", own, here).await?, "token")?;
    world.proves("what is no token is refused");
    let (hub, good) = token(world, SELF, &[]).await?;
    let other = good.replacen(&format!(".{SELF}."), ".other.", 1);
    ensure!(other != good, "the token {good} names its member");
    refused(join(world, &hub, &other, own, here).await?, "token is for cluster")?;
    world.proves("a token for one name is refused for another");

    let words = ["join", &hub, "--token", &good, "--foreground"].map(str::to_owned);
    let words: Vec<String> = [vec![world.atoll.display().to_string()], words.to_vec(), own.words()].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let home = world.dir.join("home").display().to_string();
    let agent = Process::new("agent-self", &world.dir, &words, &[("ATOLL_HOME", &home)]);
    agent.start().await?;
    let joined = ready(world, SELF, 60).await;
    let stays = agent.check().await;
    agent.kill().await?;
    if let Err(error) = joined.and(stays) {
        agent.print_tail();
        return Err(error);
    }
    world.proves("a token joins the member that it names: the hub's own API server, for a change");
    let secret = world.get("secret", "atoll-system", "atoll-agent").await?;
    foreign_certificate(world, &hub, &secret).await?;

    world.kubectl(&["delete", "secret", "-n", "atoll-system", "atoll-agent"]).await?.ok()?;
    refused(join(world, &hub, &good, own, here).await?, "was used")?;
    world.proves("a token works once");
    world.kubectl(&["delete", "cluster", SELF]).await?.ok()?;
    Ok(())
}

/// A member's certificate is good for that member's own link alone.
async fn foreign_certificate(world: &World, hub: &str, secret: &serde_json::Value) -> Result<()> {
    use base64::Engine as _;
    let part = |field: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(secret, &format!("/data/{field}")))?;
        String::from_utf8(bytes).context("text")
    };
    let certificate = write(&world.dir, "self.crt", &part("tls.crt")?)?;
    let key = write(&world.dir, "self.key", &part("tls.key")?)?;
    // As a data plane: the feed is for sites alone. An empty message: not compressed, of no length.
    let empty = write(&world.dir, "empty.grpc", "\0\0\0\0\0")?;
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--insecure",
        "--http2",
        "--max-time",
        "5",
        "--include",
        "--header",
        "content-type: application/grpc",
    ]);
    command.args([
        "--header",
        "te: trailers",
        "--data-binary",
        &format!("@{}", empty.display()),
        "--cert",
        &certificate.display().to_string(),
    ]);
    command.args(["--key", &key.display().to_string(), &format!("https://{hub}/atoll.v1.Feed/Follow")]);
    let said = run(command).await?;
    ensure!(said.out.to_lowercase().contains("grpc-status: 7"), "the feed should refuse a member: {said:?}");
    world.proves("a member's certificate opens no other door of the hub");
    // As another member: the agent's Secret names one, the certificate is for another.
    let name = base64::engine::general_purpose::STANDARD.encode("prod-eu");
    let patch = format!("{{\"data\":{{\"cluster\":\"{name}\"}}}}");
    world
        .kubectl(&["patch", "secret", "-n", "atoll-system", "atoll-agent", "--type=merge", "-p", &patch])
        .await?
        .ok()?;
    let mut command = world.atoll_command(&["join", hub, "--foreground"]);
    command.args(world.people.admin.words());
    let said = run(command).await?;
    ensure!(said.code != 0 && said.err.contains("certificate is for"), "should be refused: {said:?}");
    world.proves("the certificate of one member is refused for another");
    Ok(())
}

/// Joins all members of the testbed, each in its way, and furnishes the hub as `atoll up` does.
async fn members(world: &World, bed: &Bed) -> Result<()> {
    let archive = world.dir.join("atoll.tar");
    let mut export = world.atoll_command(&["image", "export"]);
    export.arg(&archive).args(["--name", IMAGE]);
    run(export).await?.ok()?;
    world.proves("`atoll image export` writes an image of the binary and its libraries");
    for (member, standing) in STANDING {
        let [environment, region, zone] = standing;
        let flags = ["--environment", environment, "--region", region, "--zone", zone];
        let access = world.members.get(member).context("a member")?;
        match member {
            "dev" => push(world, member, standing).await?,
            "test" => {
                let (hub, token) = token(world, member, &flags).await?;
                bed.agent_beside(world, member, &hub, &token).await?;
                world.proves(format!("{member}: Pull, by an agent that runs beside it (--foreground)"));
            }
            _ => {
                let (hub, token) = token(world, member, &flags).await?;
                bed.import(member, &archive).await?;
                join(world, &hub, &token, access, &["--install", "--image", IMAGE]).await?.ok()?;
                let deployed = ["rollout", "status", "deployment", "-n", "atoll-system", "--timeout=90s"];
                world.member(member, &deployed).await?.ok()?;
                world.proves(format!("{member}: Pull, by an agent that `atoll join --install` brought into it"));
            }
        }
    }
    let lab = bed.testbed.lab().context("asked for")?;
    let dns = format!("{{kind: Consul, domain: consul, servers: [\"{}\"]}}", lab.dns());
    world.apply(&objects::names_only("lab", "lab", &dns)).await?;
    world.proves("lab: None, a Consul of which only names are known");
    furnish(world, bed).await
}

/// The hub dials it: a kubeconfig in a Secret of the hub.
async fn push(world: &World, member: &str, [environment, region, zone]: [&str; 3]) -> Result<()> {
    let kubeconfig = world.member(member, &["config", "view", "--raw", "--flatten"]).await?.ok()?;
    let file = write(&world.dir, "pushed.kubeconfig", &kubeconfig)?;
    let from = format!("--from-file=kubeconfig={}", file.display());
    let secret = format!("{member}-kubeconfig");
    world.kubectl(&["create", "secret", "generic", "-n", "atoll-system", &secret, &from]).await?.ok()?;
    world
        .apply(&format!(
            "apiVersion: atoll.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: {member}}}\n\
             spec: {{environment: {environment}, region: {region}, zone: {zone}, sync: {{mode: Push, kubeconfigRef: {{name: {secret}}}}}}}\n"
        ))
        .await?;
    world.proves(format!("{member}: Push, by an agent inside the hub"));
    Ok(())
}

/// Registries with their credentials in the members alone, and `web` in every member.
async fn furnish(world: &World, bed: &Bed) -> Result<()> {
    let mut registries = String::new();
    for (name, [environment, ..]) in STANDING {
        let registry = bed.testbed.member(name)?.registry();
        if let Some((user, password)) = &registry.credentials {
            let (user, password) =
                (format!("--from-literal=username={user}"), format!("--from-literal=password={password}"));
            let create = ["create", "secret", "generic", "-n", "atoll-system", "registry", &user, &password];
            world.member(name, &create).await?.ok()?;
        }
        registries += &objects::registry(name, environment, &registry.address, registry.credentials.is_some());
    }
    world.apply(&registries).await?;
    world.apply(&objects::web()).await
}
