//! One question to DNS servers, one after the other: by UDP from a port of its own, by TCP where the answer does not fit.
//!
//! In: servers, a name, A or AAAA. Out: its addresses and their TTL, aliases followed; that there are none, which is an answer, too; or why nobody
//! answered. Source: RFC 1035, RFC 2308, RFC 5452 (what an answer must agree with), RFC 7766 (TCP).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Connect, Listen};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::state::{Answer, Answered};

/// So long one server is waited for, and so often all of them are asked.
const WITHIN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// An alias of an alias of an alias …
const ALIASES_MAX: usize = 8;
const DATAGRAM_MAX: usize = 4096;
/// Discard: nothing is sent there.
const ANY_PORT: u16 = 9;

/// Who asks.
pub(crate) struct Asker {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) listen: Arc<dyn Listen>,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Is(Answer),
    /// It is another one's alias, of whom the answer says nothing.
    Goes(Name, Option<u32>),
}

impl Asker {
    /// Asks for the addresses of one family.
    pub(super) async fn ask(&self, servers: &[SocketAddr], name: &str, kind: RecordType) -> Answered {
        let name = Name::from_ascii(format!("{name}.")).map_err(|bad| bad.to_string())?;
        let mut why = String::new();
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            why = match timeout(WITHIN, self.follow(*server, &name, kind)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => format!("{server}: {error}"),
                Err(_) => format!("{server}: no answer within {} s", WITHIN.as_secs()),
            };
        }
        Err(why)
    }

    /// Whether there is a way to such an address at all. Sends nothing.
    pub(super) async fn reaches(&self, ip: IpAddr) -> bool {
        self.towards((ip, ANY_PORT).into()).await.is_ok()
    }

    async fn towards(&self, at: SocketAddr) -> io::Result<UdpSocket> {
        let any = match at {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = self.listen.udp((any, 0).into()).await?;
        socket.connect(at).await?;
        Ok(socket)
    }

    /// Asks one server, also for whom the name is an alias of.
    async fn follow(&self, server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Answer> {
        let (mut asked, mut shortest) = (name.clone(), None);
        for _ in 0..ALIASES_MAX {
            let message = self.exchange(server, &asked, kind).await?;
            match read(&message, &asked, kind).map_err(io::Error::other)? {
                Step::Is(answer) => return Ok(Answer { ttl: shorter(shortest, answer.ttl), ..answer }),
                Step::Goes(to, ttl) => (asked, shortest) = (to, shorter(shortest, ttl.map(seconds))),
            }
        }
        Err(io::Error::other("an alias without an end"))
    }

    async fn exchange(&self, server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), kind));
        let octets = query.to_vec().map_err(io::Error::other)?;
        let socket = self.towards(server).await?;
        socket.send(&octets).await?;
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            let len = socket.recv(&mut datagram).await?;
            // What does not answer the question may be anybody's.
            let Some(answer) = answering(&query, &datagram[..len]) else { continue };
            if !answer.metadata.truncation {
                return Ok(answer);
            }
            let answer = by_tcp(&*self.connect, &server.ip().to_string(), server.port(), &octets).await?;
            return answering(&query, &answer).ok_or_else(|| io::Error::other("answered another question"));
        }
    }
}

/// One message by TCP, and the one that comes back (RFC 1035 §4.2.2).
pub(crate) async fn by_tcp(connect: &dyn Connect, host: &str, port: u16, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect.connect(host, port).await?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], query].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The message, where it answers that question.
fn answering(query: &Message, octets: &[u8]) -> Option<Message> {
    let message = Message::from_vec(octets).ok()?;
    let (said, asked) = (&message.metadata, &query.metadata);
    let same = match (&message.queries[..], &query.queries[..]) {
        ([a], [b]) => a.name.eq_ignore_root(&b.name) && a.query_type == b.query_type && a.query_class == b.query_class,
        // Who could not read the question does not repeat it.
        ([], _) => said.response_code != ResponseCode::NoError,
        _ => false,
    };
    (said.message_type == MessageType::Response && said.id == asked.id && same).then_some(message)
}

/// What an answer says of a name.
fn read(message: &Message, asked: &Name, kind: RecordType) -> Result<Step, String> {
    let said = &message.metadata;
    if !matches!(said.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(said.response_code.to_string());
    }
    let (mut at, mut ttl) = (asked, None);
    for _ in 0..ALIASES_MAX {
        let own = || message.answers.iter().filter(|record| record.name.eq_ignore_root(at));
        let addresses = own().filter_map(|record| match &record.data {
            RData::A(a) if kind == RecordType::A => Some((IpAddr::V4(a.0), record.ttl)),
            RData::AAAA(a) if kind == RecordType::AAAA => Some((IpAddr::V6(a.0), record.ttl)),
            _ => None,
        });
        let (addresses, ttls): (Vec<_>, Vec<_>) = addresses.unzip();
        if let Some(shortest) = ttls.into_iter().min() {
            return Ok(Step::Is(Answer { addresses, ttl: shorter(ttl, Some(shortest)).map(seconds) }));
        }
        let alias = own().find_map(|record| match &record.data {
            RData::CNAME(to) => Some((&to.0, record.ttl)),
            _ => None,
        });
        let Some((to, its)) = alias else { break };
        (at, ttl) = (to, shorter(ttl, Some(its)));
    }
    let nothing = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    if said.response_code == ResponseCode::NoError && nothing.is_none() {
        if !at.eq_ignore_root(asked) {
            return Ok(Step::Goes(at.clone(), ttl));
        }
        let refers = message.authorities.iter().any(|record| matches!(record.data, RData::NS(_)));
        if refers && !said.authoritative && !said.recursion_available {
            return Err("refers to others: it does not resolve names".to_owned());
        }
    }
    Ok(Step::Is(Answer { addresses: Vec::new(), ttl: nothing.map(seconds) }))
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

fn shorter<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};

    use super::*;

    fn name(said: &str) -> Name {
        Name::from_ascii(said).unwrap()
    }

    fn record(of: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(name(of), ttl, data)
    }

    fn answer(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::query();
        message.metadata.response_code = code;
        message.answers = answers;
        message.authorities = authorities;
        message
    }

    #[test]
    fn an_answer_is_addresses_an_alias_or_nothing() {
        let a = |of, ttl, ip: &str| record(of, ttl, RData::A(A(ip.parse().unwrap())));
        let alias = |of, ttl, to| record(of, ttl, RData::CNAME(CNAME(name(to))));
        let soa = |ttl| record("test.", ttl, RData::SOA(SOA::new(name("ns.test."), name("h.test."), 1, 1, 1, 1, 7)));
        let ns = record("test.", 60, RData::NS(NS(name("ns.test."))));
        let (ok, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
        for (case, message, says) in [
            (
                "addresses",
                answer(ok, vec![a("A.test.", 60, "10.0.0.1"), a("a.test.", 30, "10.0.0.2")], vec![]),
                "10.0.0.1 10.0.0.2 30",
            ),
            ("of somebody else", answer(ok, vec![a("b.test.", 60, "10.0.0.1")], vec![soa(60)]), " 7"),
            (
                "aliases",
                answer(
                    ok,
                    vec![a("c.test.", 60, "10.0.0.1"), alias("b.test.", 5, "c.test."), alias("a.test.", 60, "b.test.")],
                    vec![],
                ),
                "10.0.0.1 5",
            ),
            (
                "an alias of another zone's",
                answer(ok, vec![alias("a.test.", 9, "b.other.")], vec![]),
                "goes to b.other. 9",
            ),
            ("an alias of nobody", answer(none, vec![alias("a.test.", 9, "b.other.")], vec![soa(3)]), " 3"),
            (
                "an alias in a circle",
                answer(ok, vec![alias("a.test.", 9, "b.test."), alias("b.test.", 9, "a.test.")], vec![soa(60)]),
                " 7",
            ),
            ("no such name", answer(none, vec![], vec![soa(60)]), " 7"),
            ("no such name, for who knows how long", answer(none, vec![], vec![]), " ?"),
            ("nothing of that kind", answer(ok, vec![], vec![soa(5)]), " 5"),
            ("a referral", answer(ok, vec![], vec![ns]), "refers to others: it does not resolve names"),
            ("a failure", answer(ResponseCode::ServFail, vec![], vec![]), "Server Failure"),
        ] {
            let found = match read(&message, &name("a.test."), RecordType::A) {
                Ok(Step::Is(answer)) => {
                    let addresses: Vec<String> = answer.addresses.iter().map(ToString::to_string).collect();
                    let ttl = answer.ttl.map_or("?".to_owned(), |ttl| ttl.as_secs().to_string());
                    format!("{} {ttl}", addresses.join(" "))
                }
                Ok(Step::Goes(to, ttl)) => format!("goes to {to} {}", ttl.unwrap_or_default()),
                Err(why) => why,
            };
            assert_eq!(found, says, "{case}");
        }
    }

    #[test]
    fn only_what_answers_the_question_counts() {
        let mut query = Message::query();
        query.add_query(Query::query(name("a.test."), RecordType::A));
        let answered = |change: &dyn Fn(&mut Message)| {
            let mut message = query.clone();
            message.metadata.message_type = MessageType::Response;
            change(&mut message);
            answering(&query, &message.to_vec().unwrap()).is_some()
        };
        assert!(answered(&|_| {}));
        assert!(!answered(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)), "another's id");
        assert!(!answered(&|m| m.metadata.message_type = MessageType::Query), "a question");
        assert!(!answered(&|m| m.queries[0].name = name("b.test.")), "another name");
        assert!(!answered(&|m| m.queries[0].query_type = RecordType::AAAA), "another type");
        assert!(!answered(&|m| m.queries.clear()), "no question");
        assert!(answered(&|m| {
            m.queries.clear();
            m.metadata.response_code = ResponseCode::FormErr;
        }));
    }
}
