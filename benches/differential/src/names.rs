//! Names as labels of any octets: how files spell them, how the wire does. Pure.
//!
//! In: labels. Out: text (RFC 1035 §5.1), octets (RFC 1035 §3.1).

/// The longest name, the root's octet included.
pub(crate) const NAME_MAX: usize = 255;

/// An absolute name, the leftmost label first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Name(pub(crate) Vec<Vec<u8>>);

impl Name {
    /// Out of plain text without escapes.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.split('.').filter(|l| !l.is_empty()).map(|l| l.as_bytes().to_vec()).collect())
    }

    /// With a label in front.
    pub(crate) fn below(&self, label: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(std::iter::once(label.as_ref().to_vec()).chain(self.0.iter().cloned()).collect())
    }

    /// Without the leftmost label.
    pub(crate) fn parent(&self) -> Self {
        Self(self.0.iter().skip(1).cloned().collect())
    }

    /// Whether it is `other` or lies below it; without regard to case.
    pub(crate) fn within(&self, other: &Self) -> bool {
        let more = self.0.len().checked_sub(other.0.len());
        more.is_some_and(|more| {
            let pairs = self.0[more..].iter().zip(&other.0);
            pairs.into_iter().all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    }

    /// In lower case.
    pub(crate) fn folded(&self) -> Self {
        Self(self.0.iter().map(|l| l.to_ascii_lowercase()).collect())
    }

    /// In upper case.
    pub(crate) fn upper(&self) -> Self {
        Self(self.0.iter().map(|l| l.to_ascii_uppercase()).collect())
    }

    /// As octets.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(NAME_MAX);
        for label in &self.0 {
            octets.push(u8::try_from(label.len()).unwrap_or(63));
            octets.extend_from_slice(label);
        }
        octets.push(0);
        octets
    }

    /// Whether it is short enough to be a name.
    pub(crate) fn fits(&self) -> bool {
        self.wire().len() <= NAME_MAX && self.0.iter().all(|l| (1..=63).contains(&l.len()))
    }

    /// As files spell it, with the last dot.
    pub(crate) fn text(&self) -> String {
        if self.0.is_empty() { ".".to_owned() } else { self.0.iter().map(|label| spell(label) + ".").collect() }
    }
}

fn spell(label: &[u8]) -> String {
    let plain = |o: u8| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'_' | b'*' | b'/');
    let one = |o: &u8| match *o {
        o if plain(o) => char::from(o).to_string(),
        o @ (b'.' | b'+' | b'=' | b'&') => format!("\\{}", char::from(o)),
        o => format!("\\{o:03}"),
    };
    label.iter().map(one).collect()
}

/// A name of the wire, in text, for people.
pub(crate) fn show(wire: &[u8]) -> String {
    read(wire).text()
}

/// A whole name of the wire.
pub(crate) fn read(wire: &[u8]) -> Name {
    let (mut labels, mut rest) = (Vec::new(), wire);
    while let Some((length, more)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, after) = more.split_at(usize::from(*length).min(more.len()));
        labels.push(label.to_vec());
        rest = after;
    }
    Name(labels)
}
