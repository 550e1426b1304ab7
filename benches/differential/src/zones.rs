//! Zones by chance: wildcards, empty non-terminals, delegations with and without glue, chains of aliases in and out of zone, DNAME, many
//! types, sets that no datagram holds, labels of any octets. Pure.
//!
//! In: a seed. Out: [`Zone`]s: apex, master file, the names in it that are worth asking for. Only what all servers load: no data below a
//! DNAME, nothing beside a CNAME, no delegation at a wildcard.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::data::{KINDS, data, long_text};
use crate::layout::{LABELS, LAYOUTS, Layout};
use crate::names::Name;

/// What the SOA says of negative answers; its own time to live is the same.
pub(crate) const NEGATIVE_TTL: u32 = 60;
/// The serial of every zone.
pub(crate) const SERIAL: u32 = 2026;

/// A zone.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) apex: Name,
    /// The master file; the SOA is its first record.
    pub(crate) file: String,
    /// Names with records.
    pub(crate) names: Vec<Name>,
    /// Names that are delegated.
    pub(crate) cuts: Vec<Name>,
    pub(crate) signed: bool,
}

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Plain,
    Alias,
    Renamed,
    Cut,
}

/// A zone in the making.
struct Growing<'c> {
    zone: Zone,
    stands: BTreeMap<Name, Stands>,
    /// Text of the records by owner and type; each once.
    sets: BTreeMap<(Name, &'static str), Vec<String>>,
    chance: &'c mut Chance,
    /// Apexes of all zones: where aliases lead out to.
    all: Vec<Name>,
}

/// The zones of a seed.
pub(crate) fn zones(seed: u64) -> Vec<Zone> {
    let all: Vec<Name> = LAYOUTS.iter().map(|l| Name::of(l.apex)).collect();
    let grow = |(n, layout): (usize, &Layout)| {
        let mut chance = Chance::of(seed, n as u64);
        let zone = Zone {
            apex: Name::of(layout.apex),
            file: String::new(),
            names: Vec::new(),
            cuts: Vec::new(),
            signed: layout.signed,
        };
        let mut growing =
            Growing { zone, stands: BTreeMap::new(), sets: BTreeMap::new(), chance: &mut chance, all: all.clone() };
        growing.grow(layout);
        growing.finish()
    };
    LAYOUTS.iter().enumerate().map(grow).collect()
}

impl Growing<'_> {
    fn grow(&mut self, layout: &Layout) {
        let apex = self.zone.apex.clone();
        let ns = apex.below(b"ns1");
        self.put(&apex, "NS", ns.text());
        self.put(&ns, "A", "192.0.2.53".to_owned());
        self.stands.extend([(apex.clone(), Stands::Plain), (ns, Stands::Plain)]);
        for child in layout.children {
            let cut = Name::of(child);
            self.put(&cut, "NS", cut.below(b"ns1").text());
            self.put(&cut.below(b"ns1"), "A", "192.0.2.53".to_owned());
            self.stands.insert(cut, Stands::Cut);
        }
        for _ in 0..layout.names {
            self.node(layout);
        }
        for n in 0..layout.long {
            self.long(n);
        }
    }

    fn node(&mut self, layout: &Layout) {
        let name = self.owner(layout);
        let free = !self.stands.contains_key(&name.folded());
        let wild = name.0.first().is_some_and(|l| l == b"*");
        match self.chance.below(100) {
            0..14 if free => {
                let target = self.target();
                self.stand(&name, Stands::Alias);
                self.put(&name, "CNAME", target.text());
            }
            14..22 if free && !wild && !self.has_below(&name) => {
                let target = self.target();
                self.stand(&name, Stands::Renamed);
                self.put(&name, "DNAME", target.text());
                if self.chance.happens(50) {
                    self.data(&name);
                }
            }
            22..34 if free && !wild => self.delegate(&name),
            _ if matches!(self.stands.get(&name.folded()), None | Some(Stands::Plain)) => {
                self.stand(&name, Stands::Plain);
                for _ in 0..=self.chance.below(3) {
                    self.data(&name);
                }
            }
            _ => {}
        }
    }

    /// A name to be: below the apex or another name, never below a DNAME, nor below another zone of ours: NSD keeps the names of all its
    /// zones in one tree, and takes what a parent hides there for data below a DNAME of the child.
    fn owner(&mut self, layout: &Layout) -> Name {
        let apex = self.zone.apex.clone();
        let children: Vec<Name> = layout.children.iter().map(|child| Name::of(child)).collect();
        loop {
            let near: Vec<Name> = self.stands.keys().cloned().collect();
            let mut name = if self.chance.happens(35) { self.chance.pick(&near).clone() } else { apex.clone() };
            for _ in 0..=self.chance.below(3) {
                name = name.below(self.chance.pick(LABELS));
            }
            if self.chance.happens(layout.wild) {
                name = name.below(b"*");
            }
            let renamed = |n: &Name| self.stands.get(&n.folded()) == Some(&Stands::Renamed);
            let mut above = name.clone();
            let mut clear = name.fits() && name.within(&apex) && !children.iter().any(|child| name.within(child));
            while clear && above.0.len() > apex.0.len() {
                above = above.parent();
                clear = !renamed(&above);
            }
            if clear {
                return name;
            }
        }
    }

    fn has_below(&self, name: &Name) -> bool {
        self.stands.keys().any(|other| other.within(name) && other.0.len() > name.0.len())
    }

    fn stand(&mut self, name: &Name, what: Stands) {
        self.stands.insert(name.folded(), what);
        self.zone.names.push(name.clone());
    }

    fn put(&mut self, name: &Name, kind: &'static str, text: String) {
        let set = self.sets.entry((name.folded(), kind)).or_default();
        if !set.contains(&text) {
            set.push(text);
        }
    }

    fn data(&mut self, name: &Name) {
        let (kind, _) = *self.chance.pick(KINDS);
        let several = if matches!(kind, "A" | "AAAA" | "TXT" | "MX" | "SRV") { 1 + self.chance.below(4) } else { 1 };
        for _ in 0..several {
            let target = self.target();
            let text = data(kind, self.chance, &target);
            self.put(name, kind, text);
        }
    }

    /// Where something may lead: to a name that is, one that is not, one below a wildcard or a cut, another zone, outside.
    fn target(&mut self) -> Name {
        let near: Vec<Name> = self.stands.keys().cloned().collect();
        let there = self.chance.pick(&near).clone();
        let label = *self.chance.pick(LABELS);
        let target = match self.chance.below(100) {
            0..45 => there,
            45..60 => there.below(label),
            60..70 => there.parent().below(label),
            70..82 => self.chance.pick(&self.all.clone()).below(label),
            82..90 => self.zone.apex.below(label),
            _ => Name::of("host.example").below(label),
        };
        if target.fits() && target.0.len() > 1 { target } else { Name::of("short.example") }
    }

    fn delegate(&mut self, name: &Name) {
        self.stand(name, Stands::Cut);
        self.zone.cuts.push(name.clone());
        for n in 0..=self.chance.below(3) {
            let server = match self.chance.below(4) {
                // Below the cut, at it, beside it, elsewhere.
                0 | 1 => name.below(format!("ns{n}").as_bytes()),
                2 => self.zone.apex.below(format!("glue{n}").as_bytes()),
                _ => Name::of("ns.example").below(format!("n{n}").as_bytes()),
            };
            if !server.fits() {
                continue;
            }
            self.put(name, "NS", server.text());
            let plain = matches!(self.stands.get(&server.folded()), None | Some(Stands::Plain));
            if server.within(&self.zone.apex) && plain {
                self.stands.insert(server.folded(), Stands::Plain);
                let (one, other) = (data("A", self.chance, name), data("AAAA", self.chance, name));
                self.put(&server, "A", one);
                if self.chance.happens(50) {
                    self.put(&server, "AAAA", other);
                }
            }
        }
        self.put(name, "NS", "ns.example.".to_owned());
        if self.chance.happens(30) {
            let ds = data("DS", self.chance, name);
            self.put(name, "DS", ds);
        }
    }

    /// Sets that are too long for datagrams, and a delegation with more glue than one holds.
    fn long(&mut self, n: usize) {
        let apex = self.zone.apex.clone();
        let at = |what: &str| apex.below(format!("{what}{n}").as_bytes());
        let size = 1 + self.chance.below(60);
        let (addresses, texts, mails, cut) = (at("addresses"), at("texts"), at("mails"), at("cut"));
        for i in 0..size * 4 {
            self.put(&addresses, "A", format!("198.51.{}.{}", i / 250, i % 250));
        }
        for i in 0..size {
            self.put(&texts, "TXT", long_text(i, 20 + 3 * n));
            let server = apex.below(format!("mx{i}").as_bytes());
            self.put(&mails, "MX", format!("{i} {}", server.text()));
            self.put(&server, "AAAA", format!("2001:db8::{i:x}"));
            self.put(&server, "A", format!("203.0.113.{i}"));
            self.stands.insert(server, Stands::Plain);
        }
        for i in 0..=size / 4 {
            let server = cut.below(format!("a-server-with-a-long-name-{i}").as_bytes());
            self.put(&cut, "NS", server.text());
            self.put(&server, "A", format!("203.0.113.{i}"));
            self.put(&server, "AAAA", format!("2001:db8:1::{i:x}"));
            self.stands.insert(server, Stands::Plain);
        }
        for name in [&addresses, &texts, &mails] {
            self.stand(name, Stands::Plain);
        }
        self.stand(&cut, Stands::Cut);
        self.zone.cuts.push(cut);
    }

    /// The master file.
    fn finish(mut self) -> Zone {
        let apex = self.zone.apex.text();
        let mut file = format!(
            "{apex} {NEGATIVE_TTL} IN SOA ns1.{apex} hostmaster.{apex} {SERIAL} 3600 600 604800 {NEGATIVE_TTL}\n"
        );
        for ((name, kind), set) in &self.sets {
            // One TTL a set (RFC 2181 §5.2).
            let ttl = 30 * (1 + self.chance.below(100));
            // RFC 4343: the case of an owner means nothing.
            let owner = if self.chance.happens(30) { name.upper() } else { name.clone() };
            for text in set {
                file += &format!("{} {ttl} IN {kind} {text}\n", owner.text());
            }
        }
        self.zone.file = file;
        self.zone
    }
}
