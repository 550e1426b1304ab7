//! What is answered, before it becomes a message: code, records by section, extended errors, and where the chain goes on. Pure.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record};

use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::routing::Resort;

use crate::zones::Zone;

/// RFC 8914 §4: the extended errors that we give.
pub(crate) mod ede {
    /// Other Error.
    pub(crate) const OTHER: u16 = 0;
    /// Stale Answer.
    pub(crate) const STALE: u16 = 3;
    /// Stale NXDOMAIN Answer.
    pub(crate) const STALE_NXDOMAIN: u16 = 19;
    /// Blocked.
    pub(crate) const BLOCKED: u16 = 15;
    /// Not Ready.
    pub(crate) const NOT_READY: u16 = 14;
    /// Prohibited.
    pub(crate) const PROHIBITED: u16 = 18;
    /// Not Supported.
    pub(crate) const NOT_SUPPORTED: u16 = 21;
    /// No Reachable Authority.
    pub(crate) const NO_AUTHORITY: u16 = 22;
    /// Network Error.
    pub(crate) const NETWORK: u16 = 23;
}

/// An extended error: its code, and a sentence that names the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ede {
    pub(crate) code: u16,
    pub(crate) text: String,
}

/// To whom else an answer may be given as it is, without deciding again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// To everybody who stands where the asker stands: same view, cluster set, cluster, region, zone, recursion.
    #[default]
    Place,
    /// Of those, to whoever's dice show the same slot: dice modulo this number.
    Slots(u16),
    /// Of those, to the asker's neighbours.
    Client,
    /// To nobody.
    Never,
}

impl Reuse {
    /// To whom both may be given.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Place, other) | (other, Self::Place) => other,
            (Self::Client, Self::Client) => Self::Client,
            // The slot of a multiple says the slot of each.
            (Self::Slots(a), Self::Slots(b)) if a.max(1) % b.max(1) == 0 => Self::Slots(a),
            (Self::Slots(a), Self::Slots(b)) if b.max(1) % a.max(1) == 0 => Self::Slots(b),
            _ => Self::Never,
        }
    }
}

/// What an answer was made of: when it changes the answer is void, whatever its time to live.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A zone of ours, by apex.
    Zone(Name),
    /// What a member's names mean and whom to ask for them.
    Member(ClusterName),
    /// A federated service: where it is, how those clusters are, its policy.
    Service(ServiceName),
    /// Hosts that a policy names: their gateways, how their clusters are, the policy.
    Host(ServiceName),
    /// The resolvers for names that are not ours.
    Upstreams,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) rcode: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// Whether it is ours to say.
    pub(crate) authoritative: bool,
    /// Whether an upstream has validated all of it: AD, for those who ask.
    pub(crate) secure: bool,
    pub(crate) edes: Vec<Ede>,
    /// The chain goes on at this name.
    pub(crate) next: Option<Name>,
    /// Who else may get it.
    pub(crate) reuse: Reuse,
    /// Whether the addresses at the end of the answers take turns in being the first.
    pub(crate) rotates: bool,
    /// What it was made of, over the whole chain.
    pub(crate) sources: Vec<Source>,
    /// What is over already of the second that its times to live end with.
    pub(crate) spent_ms: u16,
}

impl Answer {
    fn new(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            authoritative: true,
            secure: false,
            edes: Vec::new(),
            next: None,
            reuse: Reuse::Place,
            rotates: false,
            sources: Vec::new(),
            spent_ms: 0,
        }
    }

    /// Records that are there.
    pub(crate) fn records(answers: Vec<Record>) -> Self {
        Self { answers, ..Self::new(ResponseCode::NoError) }
    }

    /// No such name (RFC 2308 §2.1).
    pub(crate) fn no_name(soa: Record) -> Self {
        Self { authorities: vec![soa], ..Self::new(ResponseCode::NXDomain) }
    }

    /// No data of this type (RFC 2308 §2.2).
    pub(crate) fn no_data(soa: Record) -> Self {
        Self { authorities: vec![soa], ..Self::new(ResponseCode::NoError) }
    }

    /// No such name in a zone of ours, to be forgotten soon: it may come with the next change.
    pub(crate) fn no_name_in(zone: &Zone) -> Self {
        Self::no_name(brief(zone))
    }

    /// No data of this type in a zone of ours, to be forgotten soon.
    pub(crate) fn no_data_in(zone: &Zone) -> Self {
        Self::no_data(brief(zone))
    }

    /// We can't say.
    pub(crate) fn failure(code: u16, text: impl Into<String>) -> Self {
        Self { authoritative: false, ..Self::new(ResponseCode::ServFail) }.because(code, text)
    }

    /// We won't say.
    pub(crate) fn refused(code: u16, text: impl Into<String>) -> Self {
        Self { authoritative: false, ..Self::new(ResponseCode::Refused) }.because(code, text)
    }

    /// With what it says where nobody was usable and the all-down rule took somebody.
    pub(crate) fn resorted(self, resort: Option<Resort>) -> Self {
        match resort.filter(|_| !self.answers.is_empty()) {
            None => self,
            Some(Resort::LastGood) => self.because(ede::STALE, "nothing is usable: what was good last"),
            Some(Resort::All) => self.because(ede::STALE, "nothing is usable: everything there is"),
        }
    }

    /// With an extended error.
    pub(crate) fn because(mut self, code: u16, text: impl Into<String>) -> Self {
        self.edes.push(Ede { code, text: text.into() });
        self
    }
}

/// The zone's SOA with a time to live that suits what changes by the second.
fn brief(zone: &Zone) -> Record {
    let mut soa = zone.soa();
    soa.ttl = soa.ttl.min(crate::table::NEGATIVE_TTL);
    soa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_both_is_what_each_allows() {
        use Reuse::{Client, Never, Place, Slots};
        for (a, b, both) in [
            (Place, Place, Place),
            (Place, Slots(4), Slots(4)),
            (Slots(4), Slots(4), Slots(4)),
            (Slots(4), Slots(8), Slots(8)),
            (Slots(3), Slots(4), Never),
            (Client, Place, Client),
            (Client, Client, Client),
            (Client, Slots(2), Never),
            (Never, Place, Never),
        ] {
            assert_eq!((a.and(b), b.and(a)), (both, both), "{a:?} {b:?}");
        }
    }
}
