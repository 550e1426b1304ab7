//! Zones and members as numbers, so that an answer that is kept says in two octets whose it is, and a thread counts in an array.
//!
//! In: what answers are made of. Out: a [`Label`]'s number; the same for as long as the server runs. Bounded: who comes when there is no
//! number left is `(other)`. Numbers are given on the slow path alone; who has one is found without waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;

use crate::answer::{Answer, Source};

/// Answers that belong to nobody: refused, malformed, not ours to say.
pub(crate) const NOBODY: u16 = 0;
/// Numbers that mean something from the start.
const FIXED: [&str; 4] = ["(none)", "(other)", "(outside)", "(other)"];
const OTHER_ZONE: u16 = 1;
const OUTSIDE: u16 = 2;
const OTHER_MEMBER: u16 = 3;
/// Zones that are told apart.
pub(crate) const ZONES_MAX: usize = 512;
/// Members that are.
pub(crate) const MEMBERS_MAX: usize = 2048;
/// All numbers are below.
pub(crate) const LABELS_MAX: usize = FIXED.len() + ZONES_MAX + MEMBERS_MAX;

/// Whose an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// Of a zone of ours, by its name.
    Zone(Arc<str>),
    /// Of a member.
    Member(Arc<str>),
}

/// All that have a number.
#[derive(Debug)]
struct Known {
    numbers: HashMap<Source, u16>,
    /// By number.
    labels: Vec<Label>,
    zones: usize,
}

/// The numbers.
#[derive(Debug)]
pub(crate) struct Labels {
    known: ArcSwap<Known>,
    giving: Mutex<()>,
}

impl Default for Labels {
    fn default() -> Self {
        let label = |(at, word): (usize, &&str)| match at == usize::from(OTHER_MEMBER) {
            true => Label::Member(Arc::from(*word)),
            false => Label::Zone(Arc::from(*word)),
        };
        let labels = FIXED.iter().enumerate().map(label).collect();
        let known = Known { numbers: HashMap::from([(Source::Upstreams, OUTSIDE)]), labels, zones: 0 };
        Self { known: ArcSwap::from_pointee(known), giving: Mutex::new(()) }
    }
}

impl Labels {
    /// The number of whose `answer` is; `zone` is the one that the question's name lies in.
    pub(crate) fn of(&self, answer: &Answer, zone: Option<&Name>) -> u16 {
        match (answer.sources.first(), zone) {
            (None, _) => NOBODY,
            (Some(source @ (Source::Member(_) | Source::Upstreams)), _) => self.number(source),
            (Some(_), Some(zone)) => self.number(&Source::Zone(zone.clone())),
            (Some(_), None) => NOBODY,
        }
    }

    /// The word for a zone, bounded in number.
    pub(crate) fn zone(&self, apex: Option<&Name>) -> Arc<str> {
        let number = apex.map_or(NOBODY, |apex| self.number(&Source::Zone(apex.clone())));
        match self.label(number) {
            Label::Zone(word) | Label::Member(word) => word,
        }
    }

    /// The word for a member, bounded in number; names that no member has are words of ours.
    pub(crate) fn member(&self, name: &str) -> Arc<str> {
        let Ok(member) = name.parse() else { return Arc::from(name) };
        match self.label(self.number(&Source::Member(member))) {
            Label::Zone(word) | Label::Member(word) => word,
        }
    }

    /// What has this number.
    pub(crate) fn label(&self, number: u16) -> Label {
        let known = self.known.load();
        known.labels.get(usize::from(number)).unwrap_or(&known.labels[usize::from(NOBODY)]).clone()
    }

    /// How many numbers are given.
    pub(crate) fn len(&self) -> usize {
        self.known.load().labels.len()
    }

    fn number(&self, source: &Source) -> u16 {
        if let Some(number) = self.known.load().numbers.get(source) {
            return *number;
        }
        let _giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load();
        if let Some(number) = known.numbers.get(source) {
            return *number;
        }
        let members = known.labels.len() - FIXED.len() - known.zones;
        let (label, zones) = match source {
            Source::Member(_) if members >= MEMBERS_MAX => return OTHER_MEMBER,
            Source::Member(name) => (Label::Member(Arc::from(name.as_str())), 0),
            Source::Zone(_) if known.zones >= ZONES_MAX => return OTHER_ZONE,
            Source::Zone(apex) => (Label::Zone(Arc::from(crate::names::show(apex))), 1),
            Source::Service(_) | Source::Host(_) | Source::Upstreams => return NOBODY,
        };
        let number = known.labels.len() as u16;
        let mut next =
            Known { numbers: known.numbers.clone(), labels: known.labels.clone(), zones: known.zones + zones };
        next.numbers.insert(source.clone(), number);
        next.labels.push(label);
        self.known.store(Arc::new(next));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn an_answer_is_of_its_member_of_outside_or_of_the_zone_that_the_name_lies_in() {
        let (labels, apex) = (Labels::default(), name("atoll.internal."));
        let service = || Source::Service(atoll_api::names::ServiceName::new("shop", "web"));
        let zone = |word: &str| Label::Zone(Arc::from(word));
        for (sources, zone_of, want) in [
            (vec![], Some(&apex), zone("(none)")),
            (vec![Source::Upstreams], None, zone("(outside)")),
            (vec![Source::Zone(apex.clone())], Some(&apex), zone("atoll.internal")),
            (vec![service(), Source::Member("eu".parse().unwrap())], Some(&apex), zone("atoll.internal")),
            (vec![Source::Member("eu".parse().unwrap()), service()], Some(&apex), Label::Member(Arc::from("eu"))),
        ] {
            let answer = Answer { sources, ..Answer::records(vec![]) };
            let number = labels.of(&answer, zone_of);
            assert_eq!((labels.label(number), labels.of(&answer, zone_of)), (want, number));
        }
        assert_eq!(labels.len(), FIXED.len() + 2);
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let labels = Labels::default();
        for n in 0..3000 {
            let member = Source::Member(format!("m{n}").parse().unwrap());
            let number = labels.number(&member);
            assert_eq!(number == OTHER_MEMBER, n >= MEMBERS_MAX);
            let zone = labels.zone(Some(&name(&format!("z{n}.example."))));
            assert_eq!(&*zone == "(other)", n >= ZONES_MAX, "{zone}");
        }
        assert_eq!(labels.len(), LABELS_MAX);
        for (name, word) in [("m0", "m0"), ("one-more", "(other)"), ("(upstream)", "(upstream)")] {
            assert_eq!(&*labels.member(name), word);
        }
    }
}
