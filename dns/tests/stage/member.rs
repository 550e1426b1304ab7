//! A DNS server by script, of a member or upstream: what it knows, how it behaves, what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::name;

/// What our probes ask for.
const PROBES: &[&str] = &["kubernetes.default.svc.cluster.local", "leader.mesos", "consul.service.consul"];

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Well,
    /// Not at all.
    Silent,
    /// After so long.
    Slow(Duration),
    /// With this code.
    Code(ResponseCode),
    /// By UDP with nothing but TC.
    Truncating,
    /// With what others should say, too.
    Lying,
    /// Well, but after forged replies: another id, another question.
    Spoofed,
    /// Only ever with another id.
    WrongId,
    /// Only ever to another question.
    WrongQuestion,
    /// With octets that are no message behind the right id.
    Garbled,
    /// As one that has validated.
    Secure,
    /// Without a SOA where nothing is there.
    Bare,
    /// That nothing is there, as one that has not read its names yet.
    Unready,
    /// By UDP with what ends in the middle.
    Halved,
    /// By UDP with more than is taken, and something else in it.
    Oversized,
    /// With FORMERR to queries with EDNS.
    Plain,
    /// By asking another server the same by UDP.
    Forwarding(SocketAddr),
    /// With the question's letters in lower case.
    Lowering,
    /// As Mesos-DNS says it does: NXDOMAIN for types other than A, SRV, SOA and NS.
    Mesos,
}

/// A section of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
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
    /// Put into every reply.
    extras: Vec<(Section, Record)>,
    manner: Manner,
    asked: Vec<String>,
    spelled: Vec<String>,
    /// From which ports it was asked by UDP.
    ports: std::collections::BTreeSet<u16>,
    connections: usize,
    hang_up: bool,
}

impl MemberDns {
    /// Serves `apex` at any port of `ip`.
    pub(crate) async fn at(ip: &str, apex: &str) -> Self {
        let script = Script {
            apex: name(apex),
            records: Vec::new(),
            extras: Vec::new(),
            manner: Manner::Well,
            asked: Vec::new(),
            spelled: Vec::new(),
            ports: std::collections::BTreeSet::new(),
            connections: 0,
            hang_up: false,
        };
        let script = Arc::new(Mutex::new(script));
        let stop = CancellationToken::new();
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((ip, 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_udp(Arc::new(udp), Arc::clone(&script))));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_tcp(tcp, Arc::clone(&script), stop.clone())));
        Self { addr, script, stop }
    }

    pub(crate) async fn new(apex: &str) -> Self {
        Self::at("127.0.0.1", apex).await
    }

    /// Knows one more record.
    pub(crate) fn knows(self, owner: &str, ttl: u32, data: RData) -> Self {
        self.learn(Record::from_rdata(name(owner), ttl, data));
        self
    }

    /// Knows one more record from now on.
    pub(crate) fn learn(&self, record: Record) {
        self.script.lock().unwrap().records.push(record);
    }

    /// Puts a record into every reply from now on.
    pub(crate) fn add(&self, section: Section, record: Record) {
        self.script.lock().unwrap().extras.push((section, record));
    }

    /// Knows nothing of `owner` any more.
    pub(crate) fn forget(&self, owner: &Name) {
        self.script.lock().unwrap().records.retain(|r| r.name != *owner);
    }

    /// The domain that it serves.
    pub(crate) fn apex(&self) -> Name {
        self.script.lock().unwrap().apex.clone()
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.script.lock().unwrap().manner = manner;
    }

    /// What it was asked so far, probes left out.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    /// The names that it was asked for by UDP, probes left out, as they were spelled.
    pub(crate) fn spelled(&self) -> Vec<String> {
        self.script.lock().unwrap().spelled.clone()
    }

    /// From how many ports it was asked by UDP, probes too.
    pub(crate) fn ports(&self) -> usize {
        self.script.lock().unwrap().ports.len()
    }

    /// How many TCP connections it took.
    pub(crate) fn connections(&self) -> usize {
        self.script.lock().unwrap().connections
    }

    /// Closes the connection on which the next query by TCP comes, without an answer.
    pub(crate) fn hang_up(&self) {
        self.script.lock().unwrap().hang_up = true;
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

async fn serve_udp(socket: Arc<UdpSocket>, script: Arc<Mutex<Script>>) {
    let mut packet = vec![0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        let (after, replies) = answer(&script, &packet[..len], "udp");
        script.lock().unwrap().ports.insert(from.port());
        let socket = Arc::clone(&socket);
        let manner = script.lock().unwrap().manner;
        if let Manner::Forwarding(to) = manner {
            let query = packet[..len].to_vec();
            tokio::spawn(async move {
                if let Some(reply) = forward(&query, to).await {
                    let _ = socket.send_to(&reply, from).await;
                }
            });
            continue;
        }
        let send = async move {
            for reply in replies {
                let _ = socket.send_to(&reply, from).await;
            }
        };
        later(after, send).await;
    }
}

/// The reply of another server.
async fn forward(query: &[u8], to: SocketAddr) -> Option<Vec<u8>> {
    let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    onward.connect(to).await.unwrap();
    onward.send(query).await.ok()?;
    let mut packet = vec![0; 4096];
    let len = tokio::time::timeout(Duration::from_secs(2), onward.recv(&mut packet)).await.ok()?.ok()?;
    packet.truncate(len);
    Some(packet)
}

/// Does it at once, or after a while beside whoever calls.
async fn later(after: Duration, what: impl Future<Output = ()> + Send + 'static) {
    if after.is_zero() {
        return what.await;
    }
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        what.await;
    });
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>, stop: CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        script.lock().unwrap().connections += 1;
        tokio::spawn(stop.clone().run_until_cancelled_owned(converse(stream, Arc::clone(&script))));
    }
}

/// Answers as it is ready, in whatever order.
async fn converse(stream: TcpStream, script: Arc<Mutex<Script>>) {
    let (mut read, write) = stream.into_split();
    let write = Arc::new(tokio::sync::Mutex::new(write));
    while let Ok(len) = read.read_u16().await {
        let mut packet = vec![0; usize::from(len)];
        if read.read_exact(&mut packet).await.is_err() || std::mem::take(&mut script.lock().unwrap().hang_up) {
            return;
        }
        let (after, mut replies) = answer(&script, &packet, "tcp");
        let (manner, write) = (script.lock().unwrap().manner, Arc::clone(&write));
        if let Manner::Forwarding(to) = manner {
            replies = forward(&packet, to).await.into_iter().collect();
        }
        let send = async move {
            for reply in replies {
                let mut framed = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
                framed.extend(reply);
                let _ = write.lock().await.write_all(&framed).await;
            }
        };
        later(after, send).await;
    }
}

/// The replies to a packet, and after how long they leave.
fn answer(script: &Mutex<Script>, packet: &[u8], by: &str) -> (Duration, Vec<Vec<u8>>) {
    let query = Message::from_vec(packet).ok().filter(|q| !q.queries.is_empty());
    let Some(query) = query else { return (Duration::ZERO, Vec::new()) };
    let mut question = query.queries[0].clone();
    let spelled = question.name.to_ascii();
    // What is found does not depend on letters; what comes back does.
    question.name = question.name.to_lowercase();
    let mut script = script.lock().unwrap();
    let probe = PROBES.iter().any(|p| question.name == name(p))
        || question.query_type == RecordType::SOA
        || question.name.is_root()
        || question.name.to_ascii().contains(".atoll-loop.");
    if !probe {
        script.asked.push(format!("{by} {} {}", question.name, question.query_type));
        if by == "udp" {
            script.spelled.push(spelled);
        }
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.queries = if script.manner == Manner::Lowering { vec![question.clone()] } else { query.queries.clone() };
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    match script.manner {
        Manner::Silent => return (Duration::ZERO, Vec::new()),
        Manner::Code(code) => {
            reply.metadata.response_code = code;
            return (Duration::ZERO, vec![reply.to_vec().unwrap()]);
        }
        Manner::Truncating if by == "udp" => {
            reply.metadata.truncation = true;
            return (Duration::ZERO, vec![reply.to_vec().unwrap()]);
        }
        Manner::Garbled => {
            let garbage = packet[..2].iter().copied().chain([0x81, 0x80, 0xff, 0xff, 0xff, 0xff, 0, 9, 0, 9, 0xc0]);
            return (Duration::ZERO, vec![garbage.collect()]);
        }
        Manner::Unready => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            return (Duration::ZERO, vec![reply.to_vec().unwrap()]);
        }
        Manner::Plain if query.edns.is_some() => {
            reply.metadata.response_code = ResponseCode::FormErr;
            return (Duration::ZERO, vec![reply.to_vec().unwrap()]);
        }
        Manner::Mesos => {
            let served = [RecordType::A, RecordType::SRV, RecordType::SOA, RecordType::NS];
            if !served.contains(&question.query_type) {
                reply.metadata.response_code = ResponseCode::NXDomain;
                return (Duration::ZERO, vec![reply.to_vec().unwrap()]);
            }
        }
        _ => {}
    }
    script.fill(&question, &mut reply);
    let whole = |reply: &Message| reply.to_vec().unwrap();
    let with_id = |mut reply: Message| {
        reply.metadata.id ^= 1;
        reply
    };
    let about = |mut reply: Message| {
        reply.queries = vec![Query::query(name("www.bank.example"), question.query_type)];
        reply
    };
    let forged = || {
        let mut forged = reply.clone();
        forged.metadata.response_code = ResponseCode::NoError;
        forged.answers = vec![Record::from_rdata(question.name.clone(), 600, RData::A(A::new(6, 6, 6, 6)))];
        forged
    };
    match script.manner {
        Manner::Slow(after) => (after, vec![whole(&reply)]),
        Manner::WrongId => (Duration::ZERO, vec![whole(&with_id(reply.clone()))]),
        Manner::WrongQuestion => (Duration::ZERO, vec![whole(&about(reply.clone()))]),
        Manner::Spoofed if by == "udp" => {
            (Duration::ZERO, vec![whole(&with_id(forged())), whole(&about(forged())), whole(&reply)])
        }
        Manner::Halved if by == "udp" => {
            let whole = whole(&reply);
            (Duration::ZERO, vec![whole[..whole.len() - 3].to_vec()])
        }
        Manner::Oversized if by == "udp" => {
            let mut forged = forged();
            forged.answers = vec![forged.answers[0].clone(); 200];
            (Duration::ZERO, vec![whole(&forged)])
        }
        _ => (Duration::ZERO, vec![whole(&reply)]),
    }
}

impl Script {
    /// Puts what it knows into a reply.
    fn fill(&self, question: &Query, reply: &mut Message) {
        let at = |owner: &Name| self.records.iter().filter(|r| r.name == *owner).cloned().collect::<Vec<_>>();
        let mut owner = question.name.clone();
        for _ in 0..16 {
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
            // RFC 8020: a name with names below it exists.
            let exists = self.records.iter().any(|r| question.name.zone_of(&r.name)) || question.name == self.apex;
            if !exists {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            let [ns, hostmaster] = ["ns.dns", "hostmaster"].map(|l| name(&format!("{l}.{}", self.apex)));
            let soa = SOA::new(ns, hostmaster, 1, 7200, 1800, 86_400, 5);
            if self.manner != Manner::Bare {
                reply.authorities.push(Record::from_rdata(self.apex.clone(), 5, RData::SOA(soa)));
            }
        }
        reply.metadata.authentic_data = self.manner == Manner::Secure;
        for (section, record) in &self.extras {
            match section {
                Section::Answer => reply.answers.push(record.clone()),
                Section::Authority => reply.authorities.push(record.clone()),
                Section::Additional => reply.additionals.push(record.clone()),
            }
        }
        if self.manner == Manner::Lying {
            let evil = RData::A(A::new(6, 6, 6, 6));
            reply.answers.push(Record::from_rdata(name("www.bank.example"), 600, evil.clone()));
            reply.additionals.push(Record::from_rdata(name("ns.bank.example"), 600, evil));
        }
    }
}
