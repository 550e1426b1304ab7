//! Programs of others against the gateway: h2spec, which says whether a server speaks HTTP/2, and nginx and HAProxy beside it over the
//! written cases and mutations of requests that two readers may read as two.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_atoll-bench-gateway");

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs the testbed's programs: ./check peers"]
async fn h2spec_finds_nothing_also_strictly() {
    let h2spec = atoll_testbed::programs::h2spec().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let started = Command::new(BENCH).arg("alone").arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut gateway = Running(started);
    let mut said = BufReader::new(gateway.0.stdout.take().unwrap()).lines();
    // Over TLS, where HTTP/2 is agreed on: a port without TLS speaks HTTP/1.1, too, and answers a broken preface in that.
    let at: SocketAddr = said.find_map(|line| line.unwrap().strip_prefix("https ")?.parse().ok()).unwrap();
    assert!(said.any(|line| line.unwrap().starts_with("ready ")), "it serves");
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    for strict in [&[][..], &["--strict"]] {
        let words = ["--tls", "--insecure", "--host", &host, "--port", &port, "--timeout", "5"];
        let ran = Command::new(&h2spec).args(words).args(strict).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let sum = said.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or_default();
        assert!(sum.ends_with(" 0 failed"), "{strict:?}\n{said}");
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: ./check peers"]
fn endpoints_of_atoll_read_what_was_sent_beside_nginx_and_haproxy() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(BENCH).args(["smuggling", "2000", "1"]).arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let otherwise = std::fs::read_to_string(folder.path().join("atoll.otherwise")).unwrap_or_default();
    assert!(ran.status.success(), "{said}{}{otherwise}", String::from_utf8_lossy(&ran.stderr));
}
