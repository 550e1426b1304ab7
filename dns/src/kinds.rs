//! The kinds of DNS that members have: what each calls its domain, how it is asked, and what it does unlike others. Pure.
//!
//! One row for each kind in [`KINDS`]; nothing else in this crate asks which kind a member is of. Sources: the Kubernetes DNS
//! specification 1.1; Mesos-DNS, "Service Naming"; Consul, "DNS usage" and hashicorp/consul#3355.

use atoll_api::kinds::DnsKind;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::names::{below, left_of};

/// How the DNS of one kind of member behaves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    kind: DnsKind,
    /// Its domain where none is written; `None`: it has the names that we give it.
    pub(crate) domain: Option<&'static str>,
    /// A name below its domain that is there as long as it knows anything, and its type.
    known: (&'static [&'static str], RecordType),
    /// Whether its names are those of the Kubernetes DNS specification and no others.
    pub(crate) specified: bool,
    /// Whether its UDP answers can't be trusted to be whole.
    pub(crate) tcp_only: bool,
    /// Whether it answers for addresses.
    pub(crate) reverse: bool,
    /// Whether it says that a name is not there when it only has no data of the type.
    confuses_types: bool,
    /// Labels that it makes out of longer names are cut to so many octets.
    label_max: Option<usize>,
}

/// Every kind.
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        kind: DnsKind::Kubernetes,
        domain: Some("cluster.local"),
        known: (&["kubernetes", "default", "svc"], RecordType::A),
        specified: true,
        tcp_only: false,
        reverse: true,
        confuses_types: false,
        label_max: None,
    },
    // "DNS requests for records of other types in the Mesos domain will return NXDOMAIN", "does not support PTR records", "must be up to
    // 24 characters … will trim it".
    Kind {
        kind: DnsKind::MesosDNS,
        domain: Some("mesos"),
        known: (&["leader"], RecordType::A),
        specified: false,
        tcp_only: false,
        reverse: false,
        confuses_types: true,
        label_max: Some(24),
    },
    // Consul cuts UDP answers to three records and does not say so.
    Kind {
        kind: DnsKind::Consul,
        domain: Some("consul"),
        known: (&["consul", "service"], RecordType::A),
        specified: false,
        tcp_only: true,
        reverse: true,
        confuses_types: false,
        label_max: None,
    },
    Kind {
        kind: DnsKind::Generic,
        domain: None,
        known: (&[], RecordType::SOA),
        specified: false,
        tcp_only: false,
        reverse: true,
        confuses_types: false,
        label_max: None,
    },
];

/// A further question, when a member says that a name is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// What is asked.
    pub(crate) question: Query,
    /// The name is another: as the member would have cut it.
    cut: bool,
}

impl Kind {
    /// The row of `kind`.
    pub(crate) fn of(kind: DnsKind) -> &'static Self {
        KINDS.iter().find(|k| k.kind == kind).expect("every kind has a row")
    }

    /// Whether its word that a name is not there counts at once: it leaves no [`Self::doubts`].
    pub(crate) fn is_plain(&self) -> bool {
        !self.confuses_types && self.label_max.is_none()
    }

    /// What a member of `domain` that is well has an answer to.
    pub(crate) fn known(&self, domain: &Name) -> Option<Query> {
        let (path, kind) = self.known;
        Some(Query::query(below(path, domain)?, kind))
    }

    /// Whether `reply` to [`Self::known`] says that the server knows its names, and not only that it runs.
    pub(crate) fn knows(&self, reply: &Message) -> bool {
        let yes = reply.metadata.response_code == ResponseCode::NoError;
        yes && (self.known.0.is_empty() || !reply.answers.is_empty())
    }

    /// What is asked before a member of `domain` is believed that the name of `question` is not there; each is asked in turn.
    pub(crate) fn doubts(&self, question: &Query, domain: &Name) -> Vec<Doubt> {
        let name = &question.name;
        let mut doubts = Vec::new();
        if self.confuses_types {
            let service = name.iter().next().is_some_and(|label| label.starts_with(b"_"));
            let kind = if service { RecordType::SRV } else { RecordType::A };
            if kind != question.query_type {
                doubts.push(Doubt { question: Query::query(name.clone(), kind), cut: false });
            }
        }
        let cut = self.label_max.and_then(|max| cut(name, domain, max));
        doubts.extend(cut.map(|name| Doubt { question: Query::query(name, question.query_type), cut: true }));
        doubts
    }
}

impl Doubt {
    /// What `no`, the reply that a name is not there, becomes by `reply` to the further question; `None`: it stands.
    pub(crate) fn settle(&self, no: &Message, reply: &Message) -> Option<Message> {
        if reply.metadata.response_code != ResponseCode::NoError || reply.answers.is_empty() {
            return None;
        }
        let mut settled = no.clone();
        settled.metadata.response_code = ResponseCode::NoError;
        if self.cut {
            let ttl = reply.answers.iter().map(|r| r.ttl).min().unwrap_or(0);
            let target = RData::CNAME(CNAME(self.question.name.clone()));
            settled.answers = vec![Record::from_rdata(no.queries.first()?.name.clone(), ttl, target)];
            settled.answers.extend(reply.answers.iter().cloned());
            settled.authorities.clear();
            settled.additionals.clone_from(&reply.additionals);
        }
        Some(settled)
    }
}

/// `name` with its labels left of `domain` cut to `max` octets, an underscore not counted; `None` when none is longer.
fn cut(name: &Name, domain: &Name, max: usize) -> Option<Name> {
    let path = left_of(name, domain)?;
    let short = |label: &[u8]| {
        let max = max + usize::from(label.starts_with(b"_"));
        label[..label.len().min(max)].to_vec()
    };
    let labels: Vec<Vec<u8>> = path.iter().map(|label| short(label)).collect();
    let changed = labels.iter().zip(&path).any(|(short, label)| short.len() < label.len());
    changed.then(|| below(&labels, domain)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::absolute;

    fn query(name: &str, kind: RecordType) -> Query {
        Query::query(absolute(name).unwrap(), kind)
    }

    #[test]
    fn every_kind_has_a_row_and_a_name_that_it_knows() {
        for (kind, domain, known) in [
            (DnsKind::Kubernetes, "cluster.local", "kubernetes.default.svc.cluster.local. A"),
            (DnsKind::MesosDNS, "mesos", "leader.mesos. A"),
            (DnsKind::Consul, "consul", "consul.service.consul. A"),
            (DnsKind::Generic, "example.com", "example.com. SOA"),
        ] {
            let row = Kind::of(kind);
            let known_query = row.known(&absolute(domain).unwrap()).unwrap();
            assert_eq!(format!("{} {}", known_query.name, known_query.query_type), known);
            assert_eq!(row.domain.unwrap_or("example.com"), domain);
        }
    }

    #[test]
    fn mesos_dns_is_asked_again_before_a_no_is_believed_and_others_are_not() {
        let long = "my-application-with-a-very-long-name.marathon.mesos";
        let short = "my-application-with-a-ve.marathon.mesos. ";
        for (name, kind, want) in [
            ("search.marathon.mesos", RecordType::A, vec![]),
            ("search.marathon.mesos", RecordType::AAAA, vec!["search.marathon.mesos. A".to_owned()]),
            ("_search._tcp.marathon.mesos", RecordType::A, vec!["_search._tcp.marathon.mesos. SRV".to_owned()]),
            (long, RecordType::A, vec![format!("{short}A")]),
            (long, RecordType::TXT, vec![format!("{long}. A"), format!("{short}TXT")]),
        ] {
            let doubts = Kind::of(DnsKind::MesosDNS).doubts(&query(name, kind), &absolute("mesos").unwrap());
            let texts: Vec<String> =
                doubts.iter().map(|d| format!("{} {}", d.question.name, d.question.query_type)).collect();
            assert_eq!(texts, want, "{name} {kind}");
        }
        let kubernetes = Kind::of(DnsKind::Kubernetes);
        let doubts =
            kubernetes.doubts(&query("a.cluster.local", RecordType::AAAA), &absolute("cluster.local").unwrap());
        assert_eq!(doubts, []);
    }
}
