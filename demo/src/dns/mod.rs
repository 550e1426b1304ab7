//! A member's DNS: what CoreDNS with its kubernetes plugin is to a cluster, on UDP and TCP.
//!
//! In: the newest [`Zone`], through a watch channel. Out: answers. Never: another server's names; those are REFUSED, as CoreDNS
//! without a forwarder does.

mod zone;

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::DNSClass,
    serialize::binary::{BinEncodable, BinEncoder},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    gate::{Door, Hatch},
    serve::serve,
};

pub(crate) use zone::Zone;

/// TCP connections at once.
const CONNECTIONS_MAX: usize = 128;
/// A TCP connection without a query ends.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// What we send by UDP at most: the size that DNS flag day 2020 recommends.
const UDP_BYTES_MAX: u16 = 1232;

/// Answers by UDP until `shutdown`.
pub(crate) async fn udp(hatch: Hatch, zone: watch::Receiver<Arc<Zone>>, shutdown: CancellationToken) {
    let mut packet = [0; 4096];
    while let Some((len, from)) = shutdown.run_until_cancelled(hatch.receive(&mut packet)).await {
        let zone = zone.borrow().clone();
        if let Some(answer) = respond(&zone, &packet[..len], false) {
            hatch.send(&answer, from).await;
        }
    }
}

/// Answers by TCP until `shutdown`.
pub(crate) async fn tcp(door: Door, zone: watch::Receiver<Arc<Zone>>, shutdown: CancellationToken) {
    let one = |stream, _| {
        let (zone, shutdown) = (zone.clone(), shutdown.clone());
        async move { shutdown.run_until_cancelled(connection(stream, zone)).await.unwrap_or_default() }
    };
    serve(door, CONNECTIONS_MAX, &shutdown, one).await;
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, zone: watch::Receiver<Arc<Zone>>) {
    loop {
        let Ok(Ok(len)) = tokio::time::timeout(IDLE_MAX, stream.read_u16()).await else { return };
        let mut packet = vec![0; usize::from(len)];
        let Ok(Ok(_)) = tokio::time::timeout(IDLE_MAX, stream.read_exact(&mut packet)).await else { return };
        let zone = zone.borrow().clone();
        let Some(answer) = respond(&zone, &packet, true) else { return };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&u16::try_from(answer.len()).unwrap_or_default().to_be_bytes());
        framed.extend_from_slice(&answer);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The answer to a packet, as bytes; `None` for what is no query.
fn respond(zone: &Zone, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(packet) else {
        // enough of a header to answer by, and not an answer itself, which we must not answer
        let id = u16::from_be_bytes([*packet.first()?, *packet.get(1)?]);
        let is_query = packet.get(2)? & 0x80 == 0 && packet.len() >= 12;
        return is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())?;
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.queries.clone_from(&query.queries);
    answer.metadata.response_code = match (&query.queries[..], query.metadata.op_code) {
        ([q], OpCode::Query) if q.query_class() == DNSClass::IN => {
            let reply = zone.answer(q.name(), q.query_type());
            answer.metadata.authoritative = reply.code != ResponseCode::Refused;
            answer.answers = reply.answers;
            answer.authorities = reply.authorities;
            answer.additionals = reply.additionals;
            reply.code
        }
        ([_], OpCode::Query) => ResponseCode::Refused,
        (_, OpCode::Query) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    let mut max = 512;
    if let Some(edns) = &query.edns {
        max = edns.max_payload().clamp(512, UDP_BYTES_MAX);
        let mut own = Edns::new();
        own.set_max_payload(UDP_BYTES_MAX);
        answer.set_edns(own);
    }
    encode(&answer, if tcp { u16::MAX } else { max })
}

/// The answer within `max` bytes: without additional records if that helps, else truncated.
fn encode(answer: &Message, max: u16) -> Option<Vec<u8>> {
    let whole = |m: &Message| {
        let mut bytes = Vec::with_capacity(512);
        m.emit(&mut BinEncoder::new(&mut bytes)).ok().map(|()| bytes)
    };
    let fits = |b: &Vec<u8>| b.len() <= usize::from(max);
    if let Some(bytes) = whole(answer).filter(fits) {
        return Some(bytes);
    }
    let mut shorter = answer.clone();
    shorter.additionals.clear();
    whole(&shorter).filter(fits).or_else(|| {
        shorter.answers.clear();
        shorter.metadata.truncation = true;
        whole(&shorter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_query_gets_no_answer_or_an_error_and_never_a_panic() {
        let zone = Zone::default();
        assert_eq!(respond(&zone, b"", false), None);
        assert_eq!(respond(&zone, b"GET / HT", false), None);
        let response = Message::response(7, OpCode::Query).to_vec().unwrap();
        assert_eq!(respond(&zone, &response, false), None);
        let mut broken = Message::query().to_vec().unwrap();
        broken[5] = 9; // nine questions, none there
        let answer = Message::from_vec(&respond(&zone, &broken, false).unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        let empty = Message::from_vec(&respond(&zone, &Message::query().to_vec().unwrap(), false).unwrap()).unwrap();
        assert_eq!(empty.metadata.response_code, ResponseCode::FormErr);
    }
}
