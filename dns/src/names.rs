//! Names as this crate compares and cuts them: absolute, by label, without regard to case. Pure.

pub(crate) use atoll_api::records::absolute;
use hickory_proto::rr::Name;

/// Whether `name` is `zone` or lies below it.
pub(crate) fn within(name: &Name, zone: &Name) -> bool {
    zone.zone_of(name)
}

/// The labels of `name` left of `zone`, leftmost first; `None` when it does not lie in it.
pub(crate) fn left_of<'n>(name: &'n Name, zone: &Name) -> Option<Vec<&'n [u8]>> {
    let more = name.iter().len().checked_sub(zone.iter().len())?;
    within(name, zone).then(|| name.iter().take(more).collect())
}

/// `labels` put in front of `zone`; `None` when that is longer than 255 octets (RFC 1035 §2.3.4).
pub(crate) fn below<L: AsRef<[u8]>>(labels: &[L], zone: &Name) -> Option<Name> {
    let labels = labels.iter().map(AsRef::as_ref).chain(zone.iter());
    Name::from_labels(labels).ok()
}

/// The name and its ancestors up to the root, nearest first.
pub(crate) fn ancestors(name: &Name) -> impl Iterator<Item = Name> + '_ {
    (0..=name.iter().len()).rev().map(|n| name.trim_to(n))
}

/// The octets of `name` as they stand in a message, uncompressed and spelled as it is (RFC 1035 §3.1).
pub(crate) fn octets(name: &Name) -> Vec<u8> {
    let mut octets = Vec::with_capacity(name.len());
    for label in name {
        octets.push(u8::try_from(label.len()).unwrap_or(0));
        octets.extend_from_slice(label);
    }
    octets.push(0);
    octets
}

/// The same in lower case; lengths are below every letter.
pub(crate) fn lower_octets(name: &Name) -> Vec<u8> {
    octets(name).to_ascii_lowercase()
}

/// The name that `octets` are, uncompressed; `None` where they are none.
pub(crate) fn of_octets(octets: &[u8]) -> Option<Name> {
    let (mut labels, mut rest) = (Vec::with_capacity(8), octets);
    while let Some((length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(label);
        rest = after;
    }
    Name::from_labels(labels).ok()
}

/// Where the name that begins at `at` in a message ends; `None` when it does not end in it, or is none.
pub(crate) fn after_name(packet: &[u8], mut at: usize) -> Option<usize> {
    // Each turn moves on by at least one octet.
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            // A pointer is the end (RFC 1035 §4.1.4); where it leads is not asked here.
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// The octets by which names are put in order (RFC 4034 §6.1): labels from the root on, in lower case, each with an end that is below all
/// letters. Those of a name begin those of the names below it, and of no others.
pub(crate) fn ordered(name: &Name) -> Vec<u8> {
    let mut octets = Vec::with_capacity(name.len() + 1);
    for label in name.iter().rev() {
        for octet in label {
            match octet {
                // The end, and what escapes it.
                0 | 1 => octets.extend_from_slice(&[1, octet + 1]),
                other => octets.push(other.to_ascii_lowercase()),
            }
        }
        octets.push(0);
    }
    octets
}

/// A label as text, where it is text.
pub(crate) fn text(label: &[u8]) -> Option<&str> {
    std::str::from_utf8(label).ok()
}

/// Without the last dot, for people and JSON.
pub(crate) fn show(name: &Name) -> String {
    let text = atoll_api::rdata::names::show(name);
    if text.len() > 1 { text.trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_joined_by_label_without_regard_to_case() {
        let zone = absolute("Atoll.Internal").unwrap();
        for (name, left) in [
            ("atoll.internal", Some(vec![])),
            ("Web.PROD.atoll.INTERNAL", Some(vec!["Web", "PROD"])),
            ("xatoll.internal", None),
            ("internal", None),
        ] {
            let name = Name::from_ascii(format!("{name}.")).unwrap();
            let labels = left_of(&name, &zone);
            let texts = labels.as_ref().map(|l| l.iter().map(|b| text(b).unwrap()).collect::<Vec<_>>());
            assert_eq!(texts, left, "{name}");
            if let Some(labels) = labels {
                assert_eq!(below(&labels, &zone).unwrap(), name, "{name}");
            }
        }
    }

    #[test]
    fn a_name_in_a_message_ends_with_the_root_or_a_pointer() {
        for (octets, end) in [
            (&b"\0"[..], Some(1)),
            (b"\x01a\x02bc\0rest", Some(6)),
            (b"\x01a\xc0\x0crest", Some(4)),
            (b"\x01a\x40\0", None),
            (b"\x01a", None),
            (b"\x3fa", None),
            (b"", None),
        ] {
            assert_eq!(after_name(octets, 0), end, "{octets:?}");
        }
    }

    #[test]
    fn octets_are_in_the_order_of_the_names() {
        // RFC 4034 §6.1: its own example, and labels that begin alike.
        let names: [&[&[u8]]; 11] = [
            &[b"example"],
            &[b"a", b"example"],
            &[b"yljkjljk", b"a", b"example"],
            &[b"Z", b"a", b"example"],
            &[b"zABC", b"a", b"EXAMPLE"],
            &[b"a-b", b"example"],
            &[b"ab", b"example"],
            &[b"z", b"example"],
            &[b"\x01", b"z", b"example"],
            &[b"*", b"z", b"example"],
            &[b"\xc8", b"z", b"example"],
        ];
        let names = names.map(|labels| Name::from_labels(labels.iter().copied()).unwrap());
        for pair in names.windows(2) {
            assert!(ordered(&pair[0]) < ordered(&pair[1]), "{} {}", pair[0], pair[1]);
        }
        for (a, b) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            assert_eq!(ordered(b).starts_with(&ordered(a)), within(b, a), "{b} in {a}");
            assert_eq!(ordered(a).cmp(&ordered(b)), a.cmp(b), "{a} {b}");
        }
    }

    #[test]
    fn a_name_that_would_be_too_long_is_none() {
        let zone = absolute(&["a"; 100].join(".")).unwrap();
        assert!(below(&["b"; 30], &zone).is_none());
    }
}
