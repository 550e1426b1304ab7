//! A member's DNS by script: what it knows, how it behaves, what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::name;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Well,
    /// Not at all.
    Silent,
    /// With this code.
    Code(ResponseCode),
    /// By UDP with nothing but TC.
    Truncating,
    /// With what others should say, too.
    Lying,
}

/// A scripted DNS server on UDP and TCP of one port.
pub(crate) struct MemberDns {
    pub(crate) addr: SocketAddr,
    script: Arc<Mutex<Script>>,
    stop: CancellationToken,
}

struct Script {
    apex: Name,
    records: Vec<Record>,
    manner: Manner,
    asked: Vec<String>,
}

impl MemberDns {
    /// Serves `apex` at any port of `ip`.
    pub(crate) async fn at(ip: &str, apex: &str) -> Self {
        let script = Script { apex: name(apex), records: Vec::new(), manner: Manner::Well, asked: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let stop = CancellationToken::new();
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((ip, 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_udp(udp, Arc::clone(&script))));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_tcp(tcp, Arc::clone(&script), stop.clone())));
        Self { addr, script, stop }
    }

    pub(crate) async fn new(apex: &str) -> Self {
        Self::at("127.0.0.1", apex).await
    }

    /// Knows one more record.
    pub(crate) fn knows(self, owner: &str, ttl: u32, data: RData) -> Self {
        self.script.lock().unwrap().records.push(Record::from_rdata(name(owner), ttl, data));
        self
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.script.lock().unwrap().manner = manner;
    }

    /// What it was asked so far, probes left out.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Dies: the port is closed.
    pub(crate) fn die(&self) {
        self.stop.cancel();
    }
}

impl Drop for MemberDns {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve_udp(socket: UdpSocket, script: Arc<Mutex<Script>>) {
    let mut packet = vec![0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        let reply = answer(&script, &packet[..len], "udp");
        if let Some(reply) = reply {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>, stop: CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(stop.clone().run_until_cancelled_owned(converse(stream, Arc::clone(&script))));
    }
}

async fn converse(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    while let Ok(len) = stream.read_u16().await {
        let mut packet = vec![0; usize::from(len)];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        if let Some(reply) = answer(&script, &packet, "tcp") {
            let mut framed = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(reply);
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

fn answer(script: &Mutex<Script>, packet: &[u8], by: &str) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).ok()?;
    let question = query.queries.first()?.clone();
    let mut script = script.lock().unwrap();
    if question.query_type != RecordType::SOA {
        script.asked.push(format!("{by} {} {}", question.name, question.query_type));
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.queries = query.queries.clone();
    match script.manner {
        Manner::Silent => return None,
        Manner::Code(code) => {
            reply.metadata.response_code = code;
            return reply.to_vec().ok();
        }
        Manner::Truncating if by == "udp" => {
            reply.metadata.truncation = true;
            return reply.to_vec().ok();
        }
        _ => {}
    }
    let at = |owner: &Name| script.records.iter().filter(|r| r.name == *owner).cloned().collect::<Vec<_>>();
    let mut owner = question.name.clone();
    for _ in 0..8 {
        let here = at(&owner);
        let found: Vec<Record> = here.iter().filter(|r| r.record_type() == question.query_type).cloned().collect();
        let done = !found.is_empty();
        reply.answers.extend(found);
        let alias = here.iter().find(|r| r.record_type() == RecordType::CNAME).filter(|_| !done);
        let Some(RData::CNAME(target)) = alias.map(|r| r.data.clone()) else { break };
        reply.answers.extend(alias.cloned());
        owner = target.0;
    }
    if reply.answers.is_empty() {
        if at(&question.name).is_empty() && question.name != script.apex {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        let [ns, hostmaster] = ["ns.dns", "hostmaster"].map(|l| name(&format!("{l}.{}", script.apex)));
        let soa = SOA::new(ns, hostmaster, 1, 7200, 1800, 86_400, 5);
        reply.authorities.push(Record::from_rdata(script.apex.clone(), 5, RData::SOA(soa)));
    }
    if script.manner == Manner::Lying {
        let evil = RData::A(hickory_proto::rr::rdata::A::new(6, 6, 6, 6));
        reply.answers.push(Record::from_rdata(name("www.bank.example"), 600, evil.clone()));
        reply.additionals.push(Record::from_rdata(name("ns.bank.example"), 600, evil));
    }
    reply.to_vec().ok()
}
