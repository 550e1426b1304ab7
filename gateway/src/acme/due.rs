//! When a certificate is to be ordered: it is missing, does not fit, or it is time to renew it. Pure.
//!
//! In: the Secret, the hosts wanted, what the CA says of the time (RFC 9773), the moment. Out: now, or when. The moment within what the CA
//! gives is drawn from the certificate's own serial number, so that it is the same for every replica and in every life.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;

use super::DIRECTORY;

/// Without a word of the CA: from two thirds of the lifetime on, within this share of it.
const SPREAD: f64 = 0.02;

/// What is known of a certificate that was made here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) leaf: CertificateDer<'static>,
    names: BTreeSet<String>,
    not_before: Timestamp,
    pub(super) not_after: Timestamp,
    directory: Option<String>,
    /// Between 0 and 1, another for each certificate.
    draw: f64,
}

/// Within which the CA wants it to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// `fits`: what is there can be used meanwhile.
    Now {
        fits: bool,
    },
    At(Timestamp),
}

impl Facts {
    /// Of a Secret that was made here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of(secret: &Secret) -> Result<Self, String> {
        let pem = secret.data.as_ref().and_then(|data| data.get("tls.crt")).ok_or("has no tls.crt")?;
        let leaf = CertificateDer::from_pem_slice(&pem.0).map_err(|error| format!("tls.crt: {error}"))?.into_owned();
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).map_err(|error| format!("tls.crt: {error}"))?;
        let names = parsed.subject_alternative_name().ok().flatten().map(|extension| {
            let names = extension.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            });
            names.collect()
        });
        let at = |seconds| Timestamp::from_second(seconds).map_err(|error| format!("tls.crt: {error}"));
        let digest = Sha256::digest(parsed.tbs_certificate.raw_serial());
        let drawn = digest.iter().take(4).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        Ok(Self {
            names: names.unwrap_or_default(),
            not_before: at(parsed.validity().not_before.timestamp())?,
            not_after: at(parsed.validity().not_after.timestamp())?,
            directory: secret.annotations().get(DIRECTORY).cloned(),
            draw: f64::from(drawn) / (f64::from(u32::MAX) + 1.0),
            leaf,
        })
    }

    /// When it is to be renewed.
    pub(super) fn renewal(&self, window: Option<Window>) -> Timestamp {
        let share = |from: Timestamp, to: Timestamp, share: f64| {
            let seconds = (to.as_second() - from.as_second()) as f64 * share;
            from.saturating_add(SignedDuration::from_secs(seconds as i64)).unwrap_or(to)
        };
        // "the end timestamp … MUST be after start": else it says nothing (RFC 9773 §4.2).
        match window.filter(|window| window.start < window.end) {
            Some(window) => share(window.start, window.end, self.draw),
            None => share(self.not_before, self.not_after, 2.0 / 3.0 + SPREAD * self.draw),
        }
    }
}

/// When a certificate of these hosts is to be ordered.
pub(super) fn due(
    hosts: &BTreeSet<String>,
    facts: Option<&Facts>,
    directory: &str,
    window: Option<Window>,
    now: Timestamp,
) -> Due {
    let Some(facts) = facts else { return Due::Now { fits: false } };
    let fits = hosts.is_subset(&facts.names) && facts.not_after > now;
    if !fits || facts.directory.as_deref() != Some(directory) {
        return Due::Now { fits };
    }
    let at = facts.renewal(window);
    if at <= now { Due::Now { fits } } else { Due::At(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * DAY).unwrap()
    }

    fn facts(draw: f64) -> Facts {
        Facts {
            leaf: CertificateDer::from(Vec::new()),
            names: BTreeSet::from(["a.test".to_owned(), "b.test".to_owned()]),
            not_before: day(0),
            not_after: day(90),
            directory: Some("ca".into()),
            draw,
        }
    }

    #[test]
    fn a_certificate_is_ordered_where_it_is_missing_does_not_fit_or_is_old() {
        let window = |from, to| Some(Window { start: day(from), end: day(to) });
        let now = |fits| Due::Now { fits };
        for (case, hosts, of, ca, window, at, expected) in [
            ("none", "a.test", None, "ca", None, 1, now(false)),
            ("fresh", "a.test", Some(0.0), "ca", None, 1, Due::At(day(60))),
            ("spread", "a.test", Some(1.0), "ca", None, 1, Due::At(day(60) + SignedDuration::from_secs(155_520))),
            ("two thirds are over", "a.test", Some(0.0), "ca", None, 60, now(true)),
            ("another host", "c.test", Some(0.0), "ca", None, 1, now(false)),
            ("another CA", "a.test", Some(0.0), "other", None, 1, now(true)),
            ("over", "a.test", Some(0.0), "ca", window(100, 120), 90, now(false)),
            ("the CA wants it sooner", "a.test", Some(0.5), "ca", window(10, 20), 1, Due::At(day(15))),
            ("and now", "a.test", Some(0.5), "ca", window(10, 20), 15, now(true)),
            ("the CA wants it later", "a.test", Some(0.0), "ca", window(80, 85), 70, Due::At(day(80))),
            ("its window is none", "a.test", Some(0.0), "ca", window(20, 20), 1, Due::At(day(60))),
        ] {
            let facts = of.map(facts);
            let hosts = BTreeSet::from([hosts.to_owned()]);
            assert_eq!(due(&hosts, facts.as_ref(), ca, window, day(at)), expected, "{case}");
        }
    }
}
