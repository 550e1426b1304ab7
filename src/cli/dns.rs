//! `atoll dns query NAME [TYPE]`: asks a DNS server as any client does; with `--from` and `--trace` also its admin port, for how the
//! answer comes about.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use atoll_reach::{Connect as _, System};
use hickory_proto::op::{Edns, Message, Query as Question};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{columns, note};
use super::run_files::Ready;
use super::trace;

const SERVER: &str = "127.0.0.1:5353";
const ANSWER_MAX: Duration = Duration::from_secs(3);
const TRIES: u32 = 2;

/// Ask for a name.
#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    /// The name, for example web.shop.svc.prod-eu.atoll.internal
    name: String,
    /// A, AAAA, SRV, TXT, …
    #[arg(value_name = "TYPE", default_value = "A")]
    kind: String,
    /// The DNS server, address or address:port; default: that of the running `atoll up`, else 127.0.0.1:5353
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// The answer that a client in this region gets (asks the admin port)
    #[arg(long, value_name = "REGION", conflicts_with = "ecs")]
    from: Option<String>,
    /// As a resolver would ask on behalf of this network, for example 203.0.113.0/24
    #[arg(long, value_name = "PREFIX")]
    ecs: Option<String>,
    /// Also show every decision on the way (asks the admin port)
    #[arg(long)]
    trace: bool,
    /// The DNS server's admin port, host:port; default: that of the running `atoll up`, else 127.0.0.1:7071
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Query {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let name = Name::from_utf8(&self.name).map_err(|_| {
            Failure::usage(format!("name `{}`: is none of DNS: labels of 1 to 63 octets, 255 in all", self.name))
        })?;
        let kind: RecordType = self
            .kind
            .to_uppercase()
            .parse()
            .map_err(|_| Failure::usage(format!("type `{}`: there is no such record type", self.kind)))?;
        let ecs = self.ecs.as_deref().map(subnet).transpose()?;
        let explained = if self.trace || self.from.is_some() {
            let admin = Ready::admin(globals, self.admin.clone());
            let shown = kind.to_string();
            let query = [
                ("name", Some(self.name.as_str())),
                ("type", Some(shown.as_str())),
                ("from", self.from.as_deref()),
                ("ecs", self.ecs.as_deref()),
            ];
            Some(super::admin::get(&admin, "/dns/explain", &query).await?)
        } else {
            None
        };
        // From elsewhere only the server itself can say; so it can for a network, whoever's word counts there.
        let answer = if self.from.is_some() || (self.trace && ecs.is_some()) {
            None
        } else {
            let (server, named) = (server(globals, self.server.as_deref())?, ecs.is_some());
            let message = ask(server, &question(name, kind, ecs)).await?;
            if named && !echoes_network(&message) {
                note(
                    "the server does not take this client's word on networks (dns.ecs): the answer is for this client; --trace shows the other",
                );
            }
            Some((server, message))
        };
        if let Some(wrong) = explained.as_ref().and_then(|explained| explained["error"].as_str()) {
            return Err(Failure::usage(wrong));
        }
        let document = document(answer.as_ref(), explained.as_ref());
        globals.output.show(&document, || text(answer.as_ref(), explained.as_ref(), self.trace))?;
        let code = answer.as_ref().map(|(_, message)| rcode(message));
        let code = code.or_else(|| Some(explained.as_ref()?["rcode"].as_str()?.to_owned()));
        ending(code.as_deref().unwrap_or("NOERROR"))
    }
}

/// Whether a DNS server answers there, whatever it says.
pub(crate) async fn is_there(address: &str) -> Outcome {
    let address = parse(address)?;
    let root = question(Name::root(), RecordType::SOA, None);
    ask(address, &root).await.map(drop)
}

fn server(globals: &Globals, given: Option<&str>) -> Outcome<SocketAddr> {
    let found = || Ready::find(globals)?.dns;
    let text = given.map(str::to_owned).or_else(found).unwrap_or_else(|| SERVER.to_owned());
    parse(&text)
}

/// An address, at port 53 where it names none.
pub(super) fn parse(text: &str) -> Outcome<SocketAddr> {
    let without_port = || text.trim_matches(['[', ']']).parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    let parsed = text.parse().or_else(|_| without_port());
    parsed.map_err(|_| Failure::usage(format!("DNS server `{text}`: write ADDRESS or ADDRESS:PORT")))
}

fn subnet(text: &str) -> Outcome<ClientSubnet> {
    let wrong = || Failure::usage(format!("--ecs `{text}`: write a prefix like 203.0.113.0/24"));
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let (address, length): (IpAddr, u8) = (address.parse().map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length > longest {
        return Err(wrong());
    }
    Ok(ClientSubnet::new(address, length, 0))
}

fn question(name: Name, kind: RecordType, ecs: Option<ClientSubnet>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    if let Some(ecs) = ecs {
        edns.options_mut().insert(EdnsOption::Subnet(ecs));
    }
    message.set_edns(edns);
    message
}

/// Asks over UDP, again over TCP when the answer was cut short.
async fn ask(server: SocketAddr, message: &Message) -> Outcome<Message> {
    let wire = message.to_vec().map_err(|e| Failure::usage(format!("the question: {e}")))?;
    let mut why = String::new();
    for _ in 0..TRIES {
        match tokio::time::timeout(ANSWER_MAX, udp(server, &wire, message.metadata.id)).await {
            Ok(Ok(answer)) if answer.metadata.truncation => {
                return match tokio::time::timeout(ANSWER_MAX, tcp(server, &wire)).await {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(error)) => Err(Failure::unreachable(format!("DNS server {server}, TCP: {error}"))),
                    Err(_) => Err(Failure::unreachable(format!("DNS server {server}: silent on TCP"))),
                };
            }
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no answer within {} s", ANSWER_MAX.as_secs()),
        }
    }
    Err(Failure::unreachable(format!("DNS server {server}: {why}; --server names another one")))
}

async fn udp(server: SocketAddr, wire: &[u8], id: u16) -> std::io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(wire).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answer.metadata.id == id => return Ok(answer),
            // Somebody else's, or none: the real one may still come.
            _ => {}
        }
    }
}

async fn tcp(server: SocketAddr, wire: &[u8]) -> std::io::Result<Message> {
    let mut stream = System::default().connect(&server.ip().to_string(), server.port()).await?;
    let length = u16::try_from(wire.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(wire).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).map_err(std::io::Error::other)
}

fn document(answer: Option<&(SocketAddr, Message)>, explained: Option<&Value>) -> Value {
    let mut document = json!({});
    if let Some((server, message)) = answer {
        let records = |list: &[Record]| {
            let one = |r: &Record| json!({"name": r.name.to_string(), "ttl": r.ttl, "type": r.record_type().to_string(), "data": r.data.to_string()});
            list.iter().map(one).collect::<Vec<_>>()
        };
        document = json!({
            "server": server.to_string(), "rcode": rcode(message), "authoritative": message.metadata.authoritative,
            "answers": records(&message.answers), "authority": records(&message.authorities), "errors": extended(message),
        });
    }
    if let Some(explained) = explained {
        document["explained"] = explained.clone();
    }
    document
}

fn rcode(message: &Message) -> String {
    let code = message.metadata.response_code;
    match u16::from(code) {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("RCODE{other}"),
    }
}

/// Whether the answer is made for the network that was named (RFC 7871 §7.2.1: such a reply says for how wide a network it is).
fn echoes_network(message: &Message) -> bool {
    message.edns.iter().any(|edns| edns.option(EdnsCode::Subnet).is_some())
}

/// Extended DNS errors (RFC 8914): code and text.
fn extended(message: &Message) -> Vec<String> {
    let options = message.edns.iter().flat_map(|edns| edns.options().get_all(EdnsCode::Unknown(15)));
    let errors = options.filter_map(|option| match option {
        EdnsOption::Unknown(15, bytes) if bytes.len() >= 2 => {
            let code = u16::from_be_bytes([bytes[0], bytes[1]]);
            Some(format!("EDE {code} {}", String::from_utf8_lossy(&bytes[2..])).trim_end().to_owned())
        }
        _ => None,
    });
    errors.collect()
}

/// How the command ends: that there is no such name is an answer, too.
fn ending(rcode: &str) -> Outcome {
    match rcode {
        "NOERROR" | "NXDOMAIN" => Ok(()),
        "REFUSED" => Err(Failure::refused("")),
        _ => Err(Failure::negative()),
    }
}

/// The decision where it is wanted, then the records, then how it ended.
fn text(answer: Option<&(SocketAddr, Message)>, explained: Option<&Value>, traced: bool) -> String {
    let mut parts = Vec::new();
    if let Some(explained) = explained.filter(|_| traced) {
        parts.push(trace::text(explained));
    }
    if let Some((server, message)) = answer {
        let all = message.answers.iter().chain(&message.authorities);
        let row =
            |r: &Record| vec![r.name.to_string(), r.ttl.to_string(), r.record_type().to_string(), r.data.to_string()];
        let errors = extended(message).into_iter().map(|e| format!("  {e}")).collect::<String>();
        parts.extend(records(all.map(row)));
        parts.push(format!("{} from {server}{errors}", rcode(message)));
    } else if let Some(explained) = explained {
        let all = ["answer", "authority"].into_iter().filter_map(|section| explained[section].as_array()).flatten();
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parts.extend(records(all.map(|r| ["name", "ttl", "type", "data"].map(|key| cell(&r[key])).into())));
        let errors = explained["errors"].as_array().into_iter().flatten();
        let errors = errors.map(|e| format!("  EDE {} {}", e["code"], cell(&e["text"]))).collect::<String>();
        parts.push(format!("{}, as it would be answered there{errors}", cell(&explained["rcode"])));
    }
    parts.join("\n")
}

fn records(rows: impl Iterator<Item = Vec<String>>) -> Option<String> {
    let table = columns::<String, String>(&[], rows);
    (!table.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_who_said_no() {
        for (rcode, code) in [("REFUSED", 3), ("SERVFAIL", 1), ("FORMERR", 1)] {
            assert_eq!(ending(rcode).unwrap_err().code, code, "{rcode}");
        }
        assert!(ending("NOERROR").is_ok() && ending("NXDOMAIN").is_ok());
    }

    #[test]
    fn a_network_is_read_or_refused() {
        assert!(subnet("203.0.113.0/24").is_ok() && subnet("2001:db8::/32").is_ok());
        for bad in ["", "203.0.113.0", "203.0.113.0/33", "x/24", "2001:db8::/129"] {
            assert_eq!(subnet(bad).unwrap_err().code, 2, "{bad}");
        }
    }
}
