//! What others feel of a flood: names of healthy members and of ours are asked at a calm rate, then the same while one member that answers
//! nothing is asked for more than anybody could.
//!
//! In: where, for how long, how many queries for the dead member. Out: for each kind of calm query its percentiles and how many got no
//! answer, quiet and in the flood; what became of the flood. One thread paces both, so that neither waits for the other to be scheduled;
//! a calm answer has come when the kernel has it (SO_TIMESTAMPNS, socket(7)), not when that thread comes to look for it.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Duration, Instant};

use crate::load::{Kind, open};
use crate::{Result, say};

/// Calm queries a second of each kind.
const CALM: [(&str, Kind, f64); 3] =
    [("own", Kind::Own, 2000.0), ("geo", Kind::Geo, 2000.0), ("miss", Kind::Miss, 500.0)];
/// An answer that takes longer is none.
const LOST: Duration = Duration::from_millis(2500);
/// Sockets that the flood comes from.
const SOCKETS: usize = 16;

/// Where, for how long, how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) at: SocketAddr,
    pub(crate) seconds: f64,
    /// Queries for the dead member, over those seconds.
    pub(crate) count: u64,
    /// What they are for.
    pub(crate) kind: Kind,
}

/// Measures.
pub(crate) fn flood(plan: &Plan) -> Result<()> {
    let mut calm = CALM.iter().map(|(_, kind, rate)| Calm::new(plan.at, *kind, *rate)).collect::<Result<Vec<_>>>()?;
    // Once, so that what can be kept is.
    pass(&mut calm, None, plan.seconds / 3.0)?;
    for part in &mut calm {
        part.took.clear();
        part.sent = 0;
    }
    pass(&mut calm, None, plan.seconds)?;
    tell("quiet", &mut calm)?;
    let mut flood = Flood::new(plan)?;
    pass(&mut calm, Some(&mut flood), plan.seconds)?;
    tell("flood", &mut calm)?;
    say("flood_sent", flood.sent)?;
    say("flood_answered", flood.answered)?;
    say("flood_failed", flood.failed)
}

fn pass(calm: &mut [Calm], mut flood: Option<&mut Flood>, seconds: f64) -> Result<()> {
    let (start, end) = (Instant::now(), Duration::from_secs_f64(seconds));
    loop {
        let since = start.elapsed();
        let sending = since < end;
        for part in calm.iter_mut() {
            part.step(since, sending);
        }
        if let Some(flood) = &mut flood {
            flood.step(since, sending);
        }
        if !sending && (since > end + LOST || calm.iter().all(|part| part.flying == 0)) {
            return Ok(());
        }
    }
}

fn tell(phase: &str, calm: &mut [Calm]) -> Result<()> {
    for ((name, ..), part) in CALM.iter().zip(calm) {
        part.took.sort_unstable();
        let at = |q: f64| part.took.get(((part.took.len() as f64 * q) as usize).min(part.took.len().saturating_sub(1)));
        let us = |q: f64| at(q).map_or(0, Duration::as_micros);
        let lost = part.sent - part.took.len() as u64;
        say(&format!("{phase}_{name}"), format!("{} {} {lost} {}", us(0.5), us(0.99), part.sent))?;
        part.took.clear();
        (part.sent, part.flying) = (0, 0);
        part.asked.fill(None);
    }
    Ok(())
}

/// One kind of calm query.
struct Calm {
    socket: UdpSocket,
    kind: Kind,
    rate: f64,
    /// When, by the clock that the kernel stamps packets with.
    asked: Vec<Option<Duration>>,
    took: Vec<Duration>,
    number: u64,
    sent: u64,
    flying: usize,
}

impl Calm {
    fn new(at: SocketAddr, kind: Kind, rate: f64) -> Result<Self> {
        let asked = vec![None; 1 << 16];
        // Names that no earlier run has asked for.
        let number = u64::from(std::process::id()) << 24;
        let socket = open(at)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Self { socket, kind, rate, asked, took: Vec::new(), number, sent: 0, flying: 0 })
    }

    fn step(&mut self, since: Duration, sending: bool) {
        let due = (since.as_secs_f64() * self.rate) as u64;
        if sending && self.sent < due {
            let id = self.number as u16;
            self.flying += usize::from(self.asked[usize::from(id)].replace(now()).is_none());
            // A full buffer is a lost query.
            let _ = self.socket.send(&self.kind.packet(self.number, id));
            (self.number, self.sent) = (self.number + 1, self.sent + 1);
        }
        let mut octets = [0; 1500];
        while let Some((length, at)) = received(&self.socket, &mut octets) {
            let id = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
            let asked = if length < 12 { None } else { self.asked[id].take() };
            if let Some(asked) = asked {
                self.flying -= 1;
                // A failure is no answer to a name that is well.
                if octets[3] & 0x0f != 2 {
                    self.took.push(at.saturating_sub(asked));
                }
            }
        }
    }
}

/// Since 1970, as the kernel counts.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

/// The next packet that has come: its length, and when it came.
fn received(socket: &UdpSocket, octets: &mut [u8]) -> Option<(usize, Duration)> {
    let mut stamp = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(octets)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut stamp), MsgFlags::MSG_DONTWAIT).ok()?;
    let at = message.cmsgs().ok()?.find_map(|said| match said {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    })?;
    Some((message.bytes, at))
}

/// Queries for the dead member.
struct Flood {
    sockets: Vec<UdpSocket>,
    kind: Kind,
    rate: f64,
    number: u64,
    sent: u64,
    answered: u64,
    failed: u64,
}

impl Flood {
    fn new(plan: &Plan) -> Result<Self> {
        let sockets = (0..SOCKETS).map(|_| open(plan.at)).collect::<Result<_>>()?;
        let kind = plan.kind;
        let number = u64::from(std::process::id()) << 24;
        Ok(Self { sockets, kind, rate: plan.count as f64 / plan.seconds, number, sent: 0, answered: 0, failed: 0 })
    }

    fn step(&mut self, since: Duration, sending: bool) {
        let due = (since.as_secs_f64() * self.rate) as u64;
        let mut burst = 0;
        // Few at a time: those who are calm get their turn.
        while sending && self.sent < due && burst < 4 {
            let socket = &self.sockets[self.sent as usize % SOCKETS];
            let _ = socket.send(&self.kind.packet(self.number, self.number as u16));
            (self.number, self.sent, burst) = (self.number + 1, self.sent + 1, burst + 1);
        }
        let mut octets = [0; 1500];
        let socket = &self.sockets[(since.as_micros() / 50) as usize % SOCKETS];
        for _ in 0..8 {
            let Ok(length) = socket.recv(&mut octets) else { break };
            self.answered += u64::from(length >= 12);
            self.failed += u64::from(length >= 12 && octets[3] & 0x0f == 2);
        }
    }
}
