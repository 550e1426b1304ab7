//! Queries at a rate or as fast as they are answered, and how long the answers take.

use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;

use tokio::time::{Duration, Instant};

use crate::{Result, say};

/// Names that the first kinds turn over.
const NAMES: u64 = 10_000;
/// Sockets, so that a server with several threads uses them.
const SOCKETS: usize = 16;
/// Queries on the way, where no rate is wanted.
const WINDOW: usize = 64;
/// An answer that takes longer is lost.
const LOST: Duration = Duration::from_millis(2000);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Names of the own zone.
    Own,
    /// Federated services.
    Geo,
    /// The same with a client subnet.
    Ecs,
    /// Names of members, few: from the cache.
    Cached,
    /// Names of members, each a new one.
    Miss,
    /// SRV of services of members, each a new one.
    Srv,
    /// Addresses of members, of which nothing may be kept.
    Ptr,
    /// Names of the own zone that are not there, each a new one.
    Random,
    /// A thousand names in each of a thousand members.
    Million,
    /// Names of the member that answers nothing, each a new one.
    Dead,
    /// A thousand names of the same.
    DeadFew,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        Ok(match word {
            "own" => Self::Own,
            "geo" => Self::Geo,
            "ecs" => Self::Ecs,
            "cached" => Self::Cached,
            "miss" => Self::Miss,
            "srv" => Self::Srv,
            "ptr" => Self::Ptr,
            "random" => Self::Random,
            "million" => Self::Million,
            "dead" => Self::Dead,
            "dead-few" => Self::DeadFew,
            other => return Err(format!("`{other}` is no kind of query")),
        })
    }
}

impl Kind {
    /// The name of the query with this number.
    pub(crate) fn name(self, n: u64) -> String {
        let turn = n % NAMES;
        match self {
            Self::Own => format!("n{turn}.own.example"),
            Self::Geo | Self::Ecs => format!("s{}.shop.svc.atoll.internal", n % 1000),
            Self::Cached => format!("w{turn}.shop.svc.m{}.atoll.internal", turn % 10),
            Self::Miss => format!("x{n}.shop.svc.m{}.atoll.internal", n % 10),
            Self::Srv => format!("_http._tcp.v{n}.shop.svc.m{}.atoll.internal", n % 10),
            Self::Ptr => format!("{}.{}.0.10.in-addr.arpa", n / 10 % 256, n % 10),
            Self::Random => format!("y{n}.own.example"),
            Self::Million => format!("w{}.shop.svc.m{}.atoll.internal", n / 1000 % 1000, n % 1000),
            Self::Dead => format!("z{n}.shop.svc.dead.atoll.internal"),
            Self::DeadFew => format!("z{}.shop.svc.dead.atoll.internal", n % 1000),
        }
    }

    /// Whether no name is asked twice.
    fn is_new(self) -> bool {
        matches!(self, Self::Miss | Self::Srv | Self::Random | Self::Dead)
    }

    /// Whether a reply is what the bench is about: an answer, and where a client's network was given, the scope that it is good for.
    fn takes(self, reply: &[u8]) -> bool {
        let scoped =
            |option: &[u8]| option[..7] == [0, 8, 0, 7, 0, 1, 24] && option[7] > 0 && option[8..] == [10, 0, 3];
        let answered = self == Self::Random || (reply[3] & 0x0f == 0 && reply[6..8] != [0, 0]);
        answered && (self != Self::Ecs || reply.windows(11).any(scoped))
    }

    /// Its number in packets (RFC 1035 §3.2.2, RFC 2782), and its name.
    pub(crate) fn record_type(self) -> (u8, &'static str) {
        match self {
            Self::Srv => (33, "SRV"),
            Self::Ptr => (12, "PTR"),
            _ => (1, "A"),
        }
    }

    pub(crate) fn packet(self, n: u64, id: u16) -> Vec<u8> {
        let mut octets = id.to_be_bytes().to_vec();
        octets.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        for label in self.name(n).split('.') {
            octets.push(label.len() as u8);
            octets.extend_from_slice(label.as_bytes());
        }
        octets.extend_from_slice(&[0, 0, self.record_type().0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0]);
        match self {
            Self::Ecs => octets.extend_from_slice(&[0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 10, 0, 3]),
            _ => octets.extend_from_slice(&[0, 0]),
        }
        octets
    }
}

/// Where, what, for how long, how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) at: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) seconds: f64,
    /// Queries a second; 0: as many as are answered.
    pub(crate) rate: f64,
    /// No more than so many.
    pub(crate) count: u64,
}

/// Runs the plan and says what came of it.
pub(crate) fn load(plan: &Plan) -> Result<()> {
    let sockets = (0..SOCKETS).map(|_| open(plan.at)).collect::<Result<Vec<_>>>()?;
    let mut asked: Vec<Option<Instant>> = vec![None; 1 << 16];
    let mut took = Vec::new();
    let (start, mut sent, mut flying, mut failed) = (Instant::now(), 0_u64, 0_usize, 0_u64);
    let (mut bytes, mut wrong) = (0, 0_u64);
    // New names are new in every run.
    let first = if plan.kind.is_new() { u64::from(std::process::id()) * 10_000_000 } else { 0 };
    let mut octets = [0; 4096];
    let end = Duration::from_secs_f64(plan.seconds);
    loop {
        let now = Instant::now();
        let since = now - start;
        let due = if plan.rate > 0.0 { (since.as_secs_f64() * plan.rate) as u64 } else { u64::MAX };
        let mut burst = 0;
        while since < end && sent < due.min(plan.count) && burst < WINDOW && (plan.rate > 0.0 || flying < WINDOW) {
            let id = sent as u16;
            if asked[usize::from(id)].is_some_and(|at| now - at < LOST) && plan.rate == 0.0 {
                break;
            }
            flying += usize::from(asked[usize::from(id)].replace(now).is_none());
            // A full buffer is a lost query.
            let _ = sockets[usize::from(id) % SOCKETS].send(&plan.kind.packet(first + sent, id));
            (sent, burst) = (sent + 1, burst + 1);
        }
        for socket in &sockets {
            while let Ok(length) = socket.recv(&mut octets) {
                let id = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
                if length < 12 {
                    continue;
                }
                if let Some(at) = asked[id].take() {
                    flying -= 1;
                    took.push(at.elapsed());
                    failed += u64::from(octets[3] & 0x0f == 2);
                    wrong += u64::from(!plan.kind.takes(&octets[..length]));
                    bytes += length;
                }
            }
        }
        let over = since > end || sent == plan.count;
        if over && (flying == 0 || since > end + LOST) {
            break;
        }
    }
    took.sort_unstable();
    let at = |part: f64| took.get(((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1)));
    say("sent", sent)?;
    say("answered", took.len())?;
    say("failed", failed)?;
    say("wrong", wrong)?;
    say("bytes", bytes / took.len().max(1))?;
    say("rate", format!("{:.0}", took.len() as f64 / plan.seconds.min(start.elapsed().as_secs_f64())))?;
    for (name, part) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
        say(name, at(part).map_or(0, Duration::as_micros))?;
    }
    Ok(())
}

pub(crate) fn open(at: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where the question of a query ends.
pub(crate) fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match usize::from(*packet.get(at)?) {
            0 => return Some(at + 5).filter(|end| *end <= packet.len()),
            length => at += 1 + length,
        }
    }
}
