//! The agent tells real resolvers of a host whom to ask for Atoll's names, by a file of theirs, and takes it back: Unbound and dnsmasq
//! (Debian's), Consul and CoreDNS (the testbed's programs; `cargo test --test applied -- --ignored`). CoreDNS in a cluster is told in
//! `tests/node_local.rs`.

#[path = "up/world.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::rr::RecordType;
use tokio::process::{Child, Command};
use world::{FREE, Place, Up, ask, until};

const NAMES: [&str; 3] =
    ["web.shop.svc.prod-eu.atoll.internal.", "web.shop.svc.atoll.internal.", "web.shop.svc.clusterset.local."];

/// A resolver with a directory `conf.d` of its own.
struct Case {
    name: &'static str,
    /// Its own configuration, in DIR, answering at IP and PORT.
    config: &'static str,
    /// The file of ours.
    file: &'static str,
    /// How it is started, and told to read its files anew, in DIR.
    start: &'static str,
    reload: &'static str,
}

const UNBOUND: Case = Case {
    name: "unbound",
    config: "server:\n interface: IP@PORT\n port: PORT\n username: \"\"\n chroot: \"\"\n directory: \"\"\n pidfile: \"DIR/pid\"\n \
             use-syslog: no\n do-daemonize: no\n module-config: \"iterator\"\nremote-control:\n control-enable: yes\n \
             control-interface: DIR/control\n control-use-cert: no\ninclude: \"DIR/conf.d/*.conf\"\n",
    file: "atoll.conf",
    start: "exec unbound -d -c DIR/config",
    reload: "unbound-control -c DIR/config reload",
};

const DNSMASQ: Case = Case {
    name: "dnsmasq",
    config: "port=PORT\nlisten-address=IP\nbind-interfaces\nno-resolv\nno-hosts\nuser=root\nconf-dir=DIR/conf.d\n",
    file: "atoll.conf",
    // It reads its files at its start only: whoever keeps it starts it again.
    start: "while [ ! -e DIR/stop ]; do dnsmasq --keep-in-foreground -C DIR/config --pid-file=DIR/pid; sleep 0.1; done",
    reload: "kill $(cat DIR/pid)",
};

const CONSUL: Case = Case {
    name: "consul",
    config: "ports { dns = PORT\n http = HTTP\n https = -1\n grpc = -1\n grpc_tls = -1\n serf_wan = -1\n server = SERVER\n serf_lan = SERF }\n",
    file: "00-atoll.hcl",
    start: "exec consul agent -dev -bind=127.0.0.1 -client=IP -config-format=hcl -config-file=DIR/config -config-dir=DIR/conf.d",
    reload: "consul reload -http-addr=IP:HTTP",
};

const COREDNS: Case = Case {
    name: "coredns",
    config: "import DIR/conf.d/*.conf\n. {\n    errors\n    reload 2s 1s\n    whoami\n}\n",
    file: "atoll.conf",
    start: "exec coredns -conf DIR/config -dns.port PORT",
    reload: "true",
};

fn free() -> SocketAddr {
    let found = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    found.expect("loopback has a free port")
}

async fn addresses(server: SocketAddr, name: &str) -> Result<Vec<String>> {
    Ok(ask(server, name, RecordType::A).await?.1)
}

/// A running program that ends with its handle.
fn run(place: &Place, name: &str, mut command: Command) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(place.at(&format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("{name} is missing"))
}

fn agent(place: &Place, kubeconfig: &Path, config: &Path) -> Result<Child> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args([
        "agent",
        "--config",
        &config.display().to_string(),
        "--kubeconfig",
        &kubeconfig.display().to_string(),
    ]);
    command.env("ATOLL_HOME", place.home());
    run(place, "agent", command)
}

async fn told_and_taken_back(place: &Place, up: &Up, case: &Case, programs: Option<&Path>) -> Result<()> {
    let dir = place.at(case.name);
    std::fs::create_dir_all(dir.join("conf.d"))?;
    let at = free();
    let ports = ["HTTP", "SERVER", "SERF"].map(|word| (word, free().port().to_string()));
    let own = [("IP", at.ip().to_string()), ("PORT", at.port().to_string())];
    // The directory last: its name may hold any letters.
    let last = [("DIR", dir.display().to_string())];
    let words: Vec<(&str, String)> = ports.into_iter().chain(own).chain(last).collect();
    let fill = |text: &str| words.iter().fold(text.to_owned(), |text, (word, with)| text.replace(word, with));
    let path = match programs {
        Some(dir) => format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default()),
        None => std::env::var("PATH").unwrap_or_default(),
    };
    std::fs::write(dir.join("config"), fill(case.config))?;
    let mut command = Command::new("sh");
    command.args(["-c", &fill(case.start)]).env("PATH", &path);
    let mut resolver = run(place, case.name, command)?;

    let kubeconfig = Path::new(up.text("kubeconfig"));
    let file = dir.join("conf.d").join(case.file);
    let reload = format!("PATH='{path}'; {}", fill(case.reload));
    let config = |enabled: bool| {
        format!(
            "hub: '{}'\nlisten: {{admin: '127.0.0.1:0'}}\nagent:\n  tokenFile: {}\n  stub:\n    resolver: {}\n    enabled: {enabled}\n    \
             servers: ['{}']\n    path: {}\n    reload: [sh, -c, \"{reload}\"]\n",
            hub(place).unwrap_or_default(),
            place.at("token").display(),
            case.name,
            up.text("dns"),
            file.display(),
        )
    };
    let said = || {
        let log = |name: &str| std::fs::read_to_string(place.at(&format!("{name}.log"))).unwrap_or_default();
        format!("{}\n{}", log("agent"), log(case.name))
    };
    let atoll: SocketAddr = up.text("dns").parse()?;
    let on = place.file("on.yaml", &config(true))?;
    let mut telling = agent(place, kubeconfig, &on)?;
    for name in NAMES {
        until(&format!("{} asks Atoll for {name}", case.name), async || {
            let (theirs, ours) = (addresses(at, name).await.with_context(said)?, addresses(atoll, name).await?);
            ensure!(theirs == ours && !ours.is_empty(), "{theirs:?}, Atoll {ours:?}\n{}", said());
            Ok(())
        })
        .await;
    }
    telling.kill().await?;
    let off = place.file("off.yaml", &config(false))?;
    let mut taking = agent(place, kubeconfig, &off)?;
    until(&format!("{} asks Atoll no more", case.name), async || {
        ensure!(!file.exists(), "{}", said());
        let left = addresses(at, NAMES[1]).await.unwrap_or_default();
        ensure!(left.is_empty(), "{left:?}\n{}", said());
        Ok(())
    })
    .await;
    taking.kill().await?;
    std::fs::write(dir.join("stop"), "")?;
    if let Some(pid) = std::fs::read_to_string(dir.join("pid")).ok().and_then(|pid| pid.trim().parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    resolver.kill().await?;
    Ok(())
}

/// host:port of the hub, as its token says it.
fn hub(place: &Place) -> Result<String> {
    Ok(std::fs::read_to_string(place.at("hub"))?)
}

async fn all(cases: &[Case], programs: Option<&Path>) -> Result<()> {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let up = place.up(&["--members", "prod-eu", "--config", &config.display().to_string()]).await?;
    for name in NAMES {
        until(name, async || {
            ensure!(!up.dig(name).await?.1.is_empty(), "no answer");
            Ok(())
        })
        .await;
    }
    // The hub's own API server is the member beside which the agent runs.
    let line = place.ended(&["token", "create", "host", "--environment", "host"]).await?.out;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [.., hub, _, token] = words.as_slice() else { anyhow::bail!("no token in `{line}`") };
    place.file("hub", hub)?;
    place.file("token", token)?;
    for case in cases {
        told_and_taken_back(&place, &up, case, programs).await?;
    }
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_of_hosts_are_told_by_the_agent_and_it_is_taken_back() -> Result<()> {
    all(&[UNBOUND, DNSMASQ], None).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the testbed's programs; ./check has a step for it"]
async fn consul_and_a_coredns_of_a_host_are_told_by_the_agent_and_it_is_taken_back() -> Result<()> {
    let programs = atoll_testbed::programs::Programs::ensure(|_| ()).await?;
    let dir = programs.path("coredns").parent().context("a folder of programs")?.to_owned();
    all(&[CONSUL, COREDNS], Some(&dir)).await
}
