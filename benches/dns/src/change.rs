//! How long a change takes until answers show it: an endpoint of one of many services, while other changes go on.

use std::net::UdpSocket;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::Topology;
use tokio::time::{Duration, Instant};

use crate::federation::{Size, endpoint};
use crate::serve::start;
use crate::{Result, say};

const AT: &str = "127.0.0.1:5391";

/// Makes `count` changes in a federation of `members` with `services` each, and says how long each took.
pub(crate) fn change(members: usize, services: usize, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let size = Size { names: 10_000, members, services: members * services };
    let running = runtime.block_on(start(AT.parse()?, size, None))?;
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(AT)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut took = Vec::new();
    for n in 0..count {
        let (service, member) = (n * 7 % size.services, n * 7 % size.members);
        let mut topology = Topology::clone(&running.topology.borrow().topology);
        topology.version.generation += 1;
        let last = 2 + (n % 200) as u8;
        // Its only offering cluster that counts is changed in both places.
        for cluster in [member, (member + 1) % size.members] {
            let name = ServiceName::new("shop", format!("s{service}"));
            let there = topology.endpoints.get_mut(format!("m{cluster}").as_str()).ok_or("no such member")?;
            there.insert(name, Arc::new(endpoint(cluster, last)?));
        }
        let start = Instant::now();
        running.topology.send_modify(|s| s.topology = Arc::new(topology));
        while !shows(&socket, service, last)? {
            if start.elapsed() > Duration::from_secs(5) {
                return Err(format!("change {n} was never seen").into());
            }
        }
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() as f64 * part) as usize).min(took.len() - 1)].as_micros();
    say("changes", count)?;
    say("p50_us", at(0.5))?;
    say("p99_us", at(0.99))?;
    say("max_us", at(1.0))
}

/// Whether the answer for a service ends in this octet.
fn shows(socket: &UdpSocket, service: usize, last: u8) -> Result<bool> {
    let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in format!("s{service}.shop.svc.atoll.internal").split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&octets)?;
    let mut reply = [0; 1232];
    let length = socket.recv(&mut reply)?;
    Ok(reply[..length].last() == Some(&last))
}
