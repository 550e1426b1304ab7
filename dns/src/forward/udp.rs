//! One question by UDP, from a socket and port of its own.
//!
//! In: a server and a query. Out: the reply that answers it. The socket is connected, so the system drops what comes from elsewhere;
//! what does not answer the query is dropped here (RFC 5452). Never gives up by itself: the caller has the deadline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use atoll_reach::Listen;
use hickory_proto::op::Message;

use super::{Failed, answers};

const PACKET_BYTES_MAX: usize = 4096;

pub(super) async fn exchange(listen: &dyn Listen, server: SocketAddr, query: Message) -> Result<Message, Failed> {
    let failed = |what: &str, e: std::io::Error| Failed::Network(format!("{server} by UDP: {what}: {e}"));
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = listen.udp(SocketAddr::new(any, 0)).await.map_err(|e| failed("socket", e))?;
    socket.connect(server).await.map_err(|e| failed("connect", e))?;
    let octets = query.to_vec().map_err(|e| Failed::Network(e.to_string()))?;
    socket.send(&octets).await.map_err(|e| failed("send", e))?;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let len = socket.recv(&mut packet).await.map_err(|e| failed("receive", e))?;
        if let Some(reply) = Message::from_vec(&packet[..len]).ok().filter(|reply| answers(&query, reply)) {
            return Ok(reply);
        }
    }
}
