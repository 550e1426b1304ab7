//! What `atoll dns stub` prints makes real resolvers ask Atoll: Unbound and dnsmasq (Debian's), CoreDNS and Consul (the testbed's
//! programs; `cargo test --test stub -- --ignored`). Each is checked by its own checker where it has one, started on loopback, and has to
//! answer as Atoll does.

#[path = "up/world.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod world;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use world::{FREE, Place, Up, ask, until};

/// Below the member, federated, and as the multi-cluster specification names it.
const NAMES: [&str; 3] =
    ["web.shop.svc.prod-eu.atoll.internal.", "web.shop.svc.atoll.internal.", "web.shop.svc.clusterset.local."];

/// A resolver and what it needs beside the stub.
struct Case {
    name: &'static str,
    package: &'static str,
    /// The whole configuration: stub, remedies of search paths, its port.
    config: fn(&str, &str, SocketAddr) -> String,
    check: Option<fn(&Path) -> Command>,
    start: fn(&Path, SocketAddr) -> Command,
    /// A name that only its remedy for search paths answers, with NXDOMAIN.
    searched: Option<&'static str>,
}

fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

const UNBOUND: Case = Case {
    name: "unbound",
    package: "unbound",
    config: |stub, remedy, at| {
        let (ip, port) = (at.ip(), at.port());
        format!(
            "{stub}\nserver:\n{remedy}\n    interface: {ip}@{port}\n    port: {port}\n    username: \"\"\n    chroot: \"\"\n    \
             directory: \"\"\n    pidfile: \"\"\n    use-syslog: no\n    do-daemonize: no\nremote-control:\n    control-enable: no\n"
        )
    },
    check: Some(|file| command("unbound-checkconf", &[&shown(file)])),
    start: |file, _| command("unbound", &["-d", "-c", &shown(file)]),
    searched: Some("web.shop.svc.atoll.internal.corp.example."),
};

const DNSMASQ: Case = Case {
    name: "dnsmasq",
    package: "dnsmasq-base",
    config: |stub, remedy, at| {
        let (ip, port) = (at.ip(), at.port());
        format!(
            "{stub}\n{remedy}\nport={port}\nlisten-address={ip}\nbind-interfaces\nno-resolv\nno-hosts\nstop-dns-rebind\nbogus-priv\n"
        )
    },
    check: Some(|file| command("dnsmasq", &["--test", "-C", &shown(file)])),
    start: |file, _| command("dnsmasq", &["--keep-in-foreground", "--user=root", "--pid-file=", "-C", &shown(file)]),
    searched: Some("web.shop.svc.atoll.internal.corp.example."),
};

const COREDNS: Case = Case {
    name: "coredns",
    package: "the testbed's programs",
    config: |stub, remedy, _| format!("{stub}\n. {{\n{remedy}\n}}\n"),
    check: None,
    start: |file, at| command("coredns", &["-conf", &shown(file), "-dns.port", &at.port().to_string()]),
    searched: Some("web.shop.svc.atoll.internal.shop.svc.cluster.local."),
};

const CONSUL: Case = Case {
    name: "consul",
    package: "the testbed's programs",
    config: |stub, _, at| format!("{stub}\nports {{ dns = {} }}\n", at.port()),
    // `consul validate` wants what only the agent is told; the agent reads it as strictly.
    check: None,
    start: |file, _| {
        let mut words: Vec<String> = ["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"].map(String::from).into();
        words.extend(["http", "https", "grpc", "grpc-tls", "serf-wan"].map(|port| format!("-{port}-port=-1")));
        words.extend(["server", "serf-lan"].map(|port| format!("-{port}-port={}", free().port())));
        words.extend(["-config-format=hcl".into(), format!("-config-file={}", shown(file))]);
        command("consul", &words.iter().map(String::as_str).collect::<Vec<_>>())
    },
    searched: None,
};

/// A port of loopback that nobody has, by UDP or TCP.
fn free() -> SocketAddr {
    loop {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
        let at = socket.local_addr().expect("it is bound");
        if std::net::TcpListener::bind(at).is_ok() {
            return at;
        }
    }
}

/// The remedies for search paths that a page holds in comments: what is indented there.
fn remedy(page: &str) -> String {
    page.lines().filter_map(|line| line.strip_prefix("#     ")).collect::<Vec<_>>().join("\n")
}

async fn start(case: &Case, programs: Option<&Path>, config: &Path, at: SocketAddr) -> Result<Child> {
    let own = |mut command: Command| {
        if let Some(dir) = programs {
            let program = dir.join(command.as_std().get_program());
            let mut found = Command::new(program);
            found.args(command.as_std().get_args());
            command = found;
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    if let Some(check) = case.check {
        let checked = own(check(config)).output().await;
        let checked = checked.with_context(|| format!("{} is missing: install {}", case.name, case.package))?;
        let said = [checked.stdout, checked.stderr].concat();
        ensure!(checked.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&said));
    }
    let mut command = own((case.start)(config, at));
    let log = std::fs::File::create(config.with_extension("log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{} is missing: install {}", case.name, case.package))
}

/// Whether a resolver has its port; if not, it ended.
async fn is_up(resolver: &mut Child, at: SocketAddr) -> Result<bool> {
    loop {
        if resolver.try_wait()?.is_some() {
            return Ok(false);
        }
        if TcpStream::connect(at).await.is_ok() {
            return Ok(true);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn answers_as_atoll_does(place: &Place, up: &Up, case: &Case, programs: Option<&Path>) -> Result<()> {
    let atoll: SocketAddr = up.text("dns").parse()?;
    let printed = place.ended(&["dns", "stub", "--for", case.name]).await?;
    printed.says(case.name, 0, &["Search paths:"]);
    let remedy = remedy(&printed.out);
    let (mut resolver, at, file) = loop {
        let at = free();
        let file = place.file(&format!("{}.conf", case.name), &(case.config)(&printed.out, &remedy, at))?;
        let mut resolver = start(case, programs, &file, at).await?;
        if is_up(&mut resolver, at).await? {
            break (resolver, at, file);
        }
        // Somebody took its port meanwhile; all else is a failure.
        let log = std::fs::read_to_string(file.with_extension("log"))?;
        ensure!(log.to_lowercase().contains("address already in use"), "{} ended: {log}", case.name);
    };
    let mut questions: Vec<(String, RecordType)> = NAMES.map(|name| (name.to_owned(), RecordType::A)).into();
    questions.push(("_http._tcp.web.shop.svc.prod-eu.atoll.internal.".into(), RecordType::SRV));
    questions.push(("nothing.shop.svc.prod-eu.atoll.internal.".into(), RecordType::A));
    if case.name != "coredns" {
        // A member's own DNS is told reverse zones with --cluster only.
        let (_, addresses) = ask(atoll, NAMES[0], RecordType::A).await?;
        let address: IpAddr = addresses.first().context("no address")?.parse()?;
        questions.push((Name::from(address).to_ascii(), RecordType::PTR));
    }
    for (name, kind) in questions {
        until(&format!("{} asks Atoll for {name} {kind}\n{}", case.name, printed.out), async || {
            let log = std::fs::read_to_string(file.with_extension("log"))?;
            let theirs = ask(at, &name, kind).await.with_context(|| log.clone())?;
            let ours = ask(atoll, &name, kind).await?;
            ensure!(theirs == ours, "{theirs:?}, Atoll {ours:?}\n{log}");
            ensure!(kind != RecordType::A || name.starts_with("nothing") || !ours.1.is_empty(), "{ours:?}");
            Ok(())
        })
        .await;
    }
    if let Some(name) = case.searched {
        assert_eq!(ask(at, name, RecordType::A).await?, (ResponseCode::NXDomain, vec![]), "{}: {name}", case.name);
    }
    resolver.kill().await?;
    Ok(())
}

async fn all(cases: &[Case], programs: Option<&Path>) -> Result<()> {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let up = place.up(&["--members", "prod-eu", "--config", &config.display().to_string()]).await?;
    for name in NAMES {
        until(name, async || {
            let answer = up.dig(name).await?;
            ensure!(!answer.1.is_empty(), "{answer:?}");
            Ok(())
        })
        .await;
    }
    for case in cases {
        answers_as_atoll_does(&place, &up, case, programs).await?;
    }
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_of_hosts_ask_atoll_with_what_is_printed_for_them() -> Result<()> {
    all(&[UNBOUND, DNSMASQ], None).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the testbed's programs; ./check has a step for it"]
async fn resolvers_of_members_ask_atoll_with_what_is_printed_for_them() -> Result<()> {
    let programs = atoll_testbed::programs::Programs::ensure(|_| ()).await?;
    let dir = programs.path("coredns").parent().context("a folder of programs")?.to_owned();
    all(&[COREDNS, CONSUL], Some(&dir)).await
}
