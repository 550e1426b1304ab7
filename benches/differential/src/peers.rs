//! The peers as programs on loopback ports: Knot, NSD and PowerDNS with its bind backend, as Debian has them.
//!
//! In: a folder, zone files. Out: running servers, which end with whoever holds them. What is set is what makes them comparable: the same
//! largest datagram, no limits for one who asks much, DNAME on, nothing that changes from question to question.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::lanes;
use crate::packet::Question;
use crate::zones::Zone;

/// Loading takes a few of these.
const A_MOMENT: Duration = Duration::from_millis(50);
const TRIES: usize = 600;

/// A peer's name, its program, its package, what runs it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    start: fn(&Path, u16, &[Served]) -> Result<Command>,
}

/// Every peer.
pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "knot", program: "knotd", package: "knot", start: knot },
    Peer { name: "nsd", program: "nsd", package: "nsd", start: nsd },
    Peer { name: "powerdns", program: "pdns_server", package: "pdns-server pdns-backend-bind", start: powerdns },
];

/// A zone as peers are told of it: apex, master file, whether it is signed.
type Served = (String, PathBuf, bool);

/// A running peer.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) at: SocketAddr,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|folder| folder.join(name)).find(|at| at.is_file());
    found.ok_or_else(|| format!("{name} is not installed: apt-get install {package}").into())
}

/// Starts every peer over `zones`, whose files are `files`.
pub(crate) fn start(folder: &Path, zones: &[Zone], files: &[PathBuf]) -> Result<Vec<Running>> {
    let zones: Vec<Served> =
        zones.iter().zip(files).map(|(zone, file)| (zone.apex.text(), file.clone(), zone.signed)).collect();
    let mut all = Vec::new();
    for peer in PEERS {
        program(peer.program, peer.package)?;
        let home = folder.join(peer.name);
        std::fs::create_dir_all(&home)?;
        let port = free_port()?;
        let log = home.join("log");
        let out = std::fs::File::create(&log)?;
        let mut command = (peer.start)(&home, port, &zones)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        all.push((Running { name: peer.name, at: ([127, 0, 0, 1], port).into(), child }, log));
    }
    for (peer, log) in &mut all {
        for (apex, ..) in &zones {
            ready(peer, apex).map_err(|why| {
                let said = std::fs::read_to_string(&*log).unwrap_or_default();
                // What is wrong with a zone is said once, at the start.
                format!("{why}; it says:\n{}", said.lines().take(20).collect::<Vec<_>>().join("\n"))
            })?;
        }
    }
    Ok(all.into_iter().map(|(peer, _)| peer).collect())
}

/// Waits until a zone is answered for.
fn ready(peer: &mut Running, apex: &str) -> Result<()> {
    let question = Question { name: crate::names::Name::of(apex), kind: 6, class: 1, ..Question::default() };
    let packet = question.packet();
    let waiting = UdpSocket::bind("127.0.0.1:0")?;
    waiting.set_read_timeout(Some(A_MOMENT))?;
    for _ in 0..TRIES {
        if let Some(status) = peer.child.try_wait()? {
            return Err(format!("{} has ended: {status}", peer.name).into());
        }
        let reply = lanes::udp(peer.at, &[&packet]).ok().and_then(|mut replies| replies.pop().flatten());
        if reply.and_then(|octets| crate::reply::read(&octets)).is_some_and(|r| r.rcode == 0 && r.is_authoritative()) {
            return Ok(());
        }
        // Nobody writes there: it waits.
        let _ = waiting.recv(&mut [0]);
    }
    Err(format!("{} does not serve {apex}", peer.name).into())
}

fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}

fn knot(home: &Path, port: u16, zones: &[Served]) -> Result<Command> {
    let at = home.display();
    let mut conf = format!(
        "server:\n  rundir: {at}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {at}\nlog:\n- target: stderr\n  any: info\nzone:\n"
    );
    for (apex, file, _) in zones {
        conf += &format!("- domain: \"{apex}\"\n  file: {}\n  zonefile-sync: -1\n", file.display());
    }
    let path = home.join("knot.conf");
    std::fs::write(&path, conf)?;
    let mut command = Command::new(program("knotd", "knot")?);
    command.arg("-c").arg(path);
    Ok(command)
}

fn nsd(home: &Path, port: u16, zones: &[Served]) -> Result<Command> {
    let at = home.display();
    let mut conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  zonesdir: \"{at}\"\n  database: \"\"\n  pidfile: \"{at}/pid\"\n  \
         xfrdfile: \"{at}/xfrd\"\n  xfrdir: \"{at}\"\n  zonelistfile: \"{at}/list\"\n  username: \"\"\n  server-count: 1\n  \
         verbosity: 1\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\nremote-control:\n  control-enable: no\n"
    );
    for (apex, file, _) in zones {
        conf += &format!("zone:\n  name: \"{apex}\"\n  zonefile: \"{}\"\n", file.display());
    }
    let path = home.join("nsd.conf");
    std::fs::write(&path, conf)?;
    let mut command = Command::new(program("nsd", "nsd")?);
    command.arg("-d").arg("-c").arg(path);
    Ok(command)
}

fn powerdns(home: &Path, port: u16, zones: &[Served]) -> Result<Command> {
    let at = home.display();
    let mut named = String::new();
    for (apex, file, _) in zones {
        named += &format!("zone \"{apex}\" {{ type master; file \"{}\"; }};\n", file.display());
    }
    std::fs::write(home.join("named.conf"), named)?;
    let conf = format!(
        "launch=bind\nbind-config={at}/named.conf\nbind-dnssec-db={at}/dnssec.db\nlocal-address=127.0.0.1\nlocal-port={port}\n\
         socket-dir={at}\ndaemon=no\nguardian=no\nsetuid=\nsetgid=\ndname-processing=yes\nreceiver-threads=1\ndistributor-threads=1\n\
         udp-truncation-threshold=1232\nmax-tcp-connections=50\nmax-tcp-transactions-per-conn=0\nquery-logging=no\nloglevel=4\n\
         security-poll-suffix=\nzone-cache-refresh-interval=0\nwebserver=no\nversion-string=anonymous\n"
    );
    std::fs::write(home.join("pdns.conf"), conf)?;
    let folder = format!("--config-dir={at}");
    let util = program("pdnsutil", "pdns-server")?;
    let run = |words: &[&str]| -> Result<()> {
        let out = Command::new(&util).arg(&folder).args(words).output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(()) } else { Err(format!("pdnsutil {words:?}: {said}").into()) }
    };
    let _ = std::fs::remove_file(home.join("dnssec.db"));
    run(&["create-bind-db", &format!("{at}/dnssec.db")])?;
    for (apex, ..) in zones.iter().filter(|(.., signed)| *signed) {
        run(&["set-presigned", apex.trim_end_matches('.')])?;
    }
    let mut command = Command::new(program("pdns_server", "pdns-server pdns-backend-bind")?);
    command.arg(folder);
    Ok(command)
}
