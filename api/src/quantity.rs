//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) as thousandths, so that cpu and bytes add up exactly.
//!
//! In: the text of a quantity. Out: [`Milli`]. Source: apimachinery's `resource.Quantity`; sub-milli parts round up.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// A quantity in thousandths of its unit. May be negative (free room of an overcommitted cluster).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Milli(pub i128);

/// More than any machine has, so that sums of hostile numbers can't overflow.
const MILLI_MAX: i128 = 1 << 90;

impl Milli {
    /// Parses a quantity; nothing where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        // scale × 1000 as a fraction, so that nano and exponents work alike
        let (num, den): (i128, i128) = match suffix {
            "" => (1000, 1),
            "n" => (1, 1_000_000),
            "u" => (1, 1000),
            "m" => (1, 1),
            "k" => (1_000_000, 1),
            "M" => (1_000_000_000, 1),
            "G" => (1_000_000_000_000, 1),
            "T" => (10_i128.pow(15), 1),
            "P" => (10_i128.pow(18), 1),
            "E" => (10_i128.pow(21), 1),
            "Ki" => (1000 << 10, 1),
            "Mi" => (1000 << 20, 1),
            "Gi" => (1000 << 30, 1),
            "Ti" => (1000 << 40, 1),
            "Pi" => (1000 << 50, 1),
            "Ei" => (1000 << 60, 1),
            _ => exponent(suffix)?,
        };
        let (mantissa, places) = decimal(number)?;
        let den = den.checked_mul(10_i128.checked_pow(places)?)?;
        let value = mantissa.checked_mul(num)?;
        // Kubernetes rounds away from zero.
        let rounded = (value.abs().checked_add(den - 1)? / den) * value.signum();
        Some(Self(rounded.clamp(-MILLI_MAX, MILLI_MAX)))
    }

    /// As Kubernetes writes bytes: the largest binary suffix that is exact (`16Gi`), plainly where none is.
    #[must_use]
    pub fn bytes(self) -> String {
        let units = self.0 / 1000;
        let suffixes = [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
        let exact = |shift: u32| self.0 % 1000 == 0 && units != 0 && units % (1 << shift) == 0;
        match suffixes.into_iter().find(|(shift, _)| exact(*shift)) {
            Some((shift, suffix)) => format!("{}{suffix}", units / (1 << shift)),
            None => self.to_string(),
        }
    }

    /// The whole units, rounded down.
    #[must_use]
    pub fn units(self) -> i128 {
        self.0.div_euclid(1000)
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = power.checked_add(3)?;
    let ten = |n: u32| 10_i128.checked_pow(n);
    if power >= 0 { Some((ten(power.unsigned_abs())?, 1)) } else { Some((1, ten(power.unsigned_abs())?)) }
}

/// `-1.25` → (−125, 2).
fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.bytes().any(|b| !b.is_ascii_digit()) || number.len() > 30 {
        return None;
    }
    let places = u32::try_from(fraction.len()).ok()?;
    Some((format!("{whole}{fraction}").parse().ok()?, places))
}

/// As Kubernetes writes it: whole units plainly, else thousandths.
impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 1000 == 0 { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl Add for Milli {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self((self.0 + other.0).clamp(-MILLI_MAX, MILLI_MAX))
    }
}

impl Sub for Milli {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self((self.0 - other.0).clamp(-MILLI_MAX, MILLI_MAX))
    }
}

impl AddAssign for Milli {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Milli {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_with_the_largest_exact_binary_suffix() {
        for (text, want) in [
            ("17179869184", "16Gi"),
            ("16256Mi", "16256Mi"),
            ("16337412Ki", "16337412Ki"),
            ("1000", "1000"),
            ("1M", "1000000"),
            ("-2048", "-2Ki"),
            ("0", "0"),
            ("1500m", "1500m"),
            ("1Ei", "1Ei"),
        ] {
            let written = Milli::parse(text).unwrap().bytes();
            assert_eq!(written, want, "{text}");
            assert_eq!(Milli::parse(&written), Milli::parse(text), "{text} reads back");
        }
    }

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1000 * 3 * (1 << 29))),
            ("128974848", Some(128_974_848_000)),
            ("129e6", Some(129_000_000_000)),
            ("129M", Some(129_000_000_000)),
            ("1E", Some(10_i128.pow(21))),
            ("1e-3", Some(1)),
            ("100n", Some(1)),
            ("1u", Some(1)),
            ("-1", Some(-1000)),
            ("", None),
            ("m", None),
            ("1.2.3", None),
            ("1x", None),
            ("e", None),
            ("99999999999999999999999999999999999999Ei", None),
            ("1e999", None),
        ] {
            assert_eq!(Milli::parse(text).map(|q| q.0), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(milli in -MILLI_MAX/2..MILLI_MAX/2) {
            let milli = Milli(milli % 10_i128.pow(24));
            proptest::prop_assert_eq!(Milli::parse(&milli.to_string()), Some(milli));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Milli::parse(&text);
        }
    }
}
