//! A server in a process that may open few descriptors, and a crowd that takes all of them.
//!
//! The test starts itself again as a child below a limit of `ulimit -n`; the child serves until its stdin ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use atoll_dns::Config;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use super::{DB, octets, topology};
use crate::stage::{Stage, data};

const CHILD: &str = "ATOLL_TEST_EXHAUSTED";
/// What the child may open: the runtime and the listeners take about half.
const DESCRIPTORS: u32 = 48;

/// The child's side; nothing unless it was started as one.
#[test]
fn a_child_that_serves() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::everywhere(Config::default(), topology()).await;
        println!("\nserves {} {}", stage.addr, stage.ends().tls);
        let wait = || std::io::stdin().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
        stage.end().await;
    });
}

/// The child, what it says, and where it serves.
fn start() -> (Child, BufReader<ChildStdout>, SocketAddr, SocketAddr) {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -n {DESCRIPTORS}; exec \"$0\" --exact exhausted::a_child_that_serves --nocapture"),
        ])
        .arg(this)
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let said =
        out.by_ref().lines().map_while(Result::ok).find_map(|line| line.strip_prefix("serves ").map(str::to_owned));
    let said = said.expect("the child says where it serves");
    let (plain, tls) = said.split_once(' ').unwrap();
    let at = [plain, tls].map(|at| at.parse().unwrap());
    (child, out, at[0], at[1])
}

/// Clock ticks that a process has used.
fn ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    after.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

fn by_udp(at: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(&octets(DB, RecordType::A), at).unwrap();
    let mut reply = [0; 4096];
    socket.recv(&mut reply).is_ok_and(|len| data(&Message::from_vec(&reply[..len]).unwrap()) == "192.0.2.7")
}

fn by_tcp(at: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(at) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let ask = octets(DB, RecordType::A);
    let asked = stream.write_all(&[&(ask.len() as u16).to_be_bytes()[..], &ask].concat());
    let mut length = [0; 2];
    asked.and_then(|()| stream.read_exact(&mut length)).is_ok() && u16::from_be_bytes(length) > 12
}

#[test]
fn without_descriptors_the_server_neither_spins_nor_dies_and_goes_on() {
    let (mut child, mut out, plain, tls) = start();
    assert!(by_udp(plain) && by_tcp(plain));
    // The crowd: the kernel takes them all, the server can't.
    let crowd: Vec<TcpStream> =
        (0..100).map(|n| TcpStream::connect(if n % 2 == 0 { plain } else { tls }).unwrap()).collect();
    let (began, used) = (Instant::now(), ticks(&child));
    while began.elapsed() < Duration::from_secs(1) {
        assert!(by_udp(plain), "those who need no descriptor are served");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    assert!(open + 1 >= DESCRIPTORS as usize, "all are in use: {open}");
    // A loop that spins takes a whole core: 100 ticks a second.
    let spent = ticks(&child) - used;
    assert!(spent < 60, "{spent} ticks of 10 ms in one second");
    assert!(child.try_wait().unwrap().is_none(), "it lives");
    drop(crowd);
    let recovered = Instant::now();
    while !by_tcp(plain) {
        assert!(recovered.elapsed() < Duration::from_secs(10), "it accepts again");
    }
    drop(child.stdin.take());
    out.read_to_string(&mut String::new()).unwrap();
    assert!(child.wait().unwrap().success());
}
