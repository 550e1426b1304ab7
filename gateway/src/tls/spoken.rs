//! Which versions and ciphers of TLS a listener speaks, out of its `tls.options`. Pure.
//!
//! In: options by name. Out: [`Spoken`], or what is wrong with one: nothing that is asked for is passed over. Ciphers have the names of RFC 8446
//! and RFC 5246, or OpenSSL's. As with other servers a list that names none of TLS 1.3 says nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::ingress::option;
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

static NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// What is spoken; all that is safe, where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spoken {
    newest_only: bool,
    /// None else.
    ciphers: Option<Vec<CipherSuite>>,
}

impl Spoken {
    /// # Errors
    /// Why an option can't be carried out.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let known =
            [option::CLIENT_CA, option::CLIENT_VERIFY, option::CLIENT_DEPTH, option::MIN_VERSION, option::CIPHERS];
        let mut ours = options.keys().filter(|name| name.starts_with(option::OURS));
        if let Some(odd) = ours.find(|name| !known.contains(&name.as_str())) {
            return Err(format!("`{odd}` is none of {}", known.join(", ")));
        }
        let lonely = [option::CLIENT_VERIFY, option::CLIENT_DEPTH].into_iter().find(|name| options.contains_key(*name));
        if let Some(lonely) = lonely.filter(|_| !options.contains_key(option::CLIENT_CA)) {
            return Err(format!("`{lonely}` is nothing without {}", option::CLIENT_CA));
        }
        let newest_only = match options.get(option::MIN_VERSION).map(|written| written.trim()) {
            None | Some("1.2") => false,
            Some("1.3") => true,
            Some(other) => return Err(format!("{}: `{other}` is neither 1.2 nor 1.3", option::MIN_VERSION)),
        };
        let ciphers = options.get(option::CIPHERS).map(|written| ciphers(written)).transpose()?;
        Ok(Self { newest_only, ciphers })
    }

    /// The same, with the ciphers that are spoken alone.
    pub(super) fn provider(&self, all: &Arc<CryptoProvider>) -> Arc<CryptoProvider> {
        let Some(named) = &self.ciphers else { return Arc::clone(all) };
        let mut provider = CryptoProvider::clone(all);
        let of_newest = |suite: &SupportedCipherSuite| suite.tls13().is_some();
        let names_newest = provider.cipher_suites.iter().any(|one| of_newest(one) && named.contains(&one.suite()));
        let spoken = |one: &SupportedCipherSuite| named.contains(&one.suite()) || of_newest(one) && !names_newest;
        provider.cipher_suites.retain(spoken);
        Arc::new(provider)
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.newest_only { NEWEST } else { rustls::ALL_VERSIONS }
    }
}

/// The ciphers of a list, by commas, colons or spaces.
fn ciphers(written: &str) -> Result<Vec<CipherSuite>, String> {
    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
    let words = written.split([',', ':', ' ']).filter(|word| !word.is_empty());
    let one = |word: &str| {
        let found = all
            .iter()
            .map(SupportedCipherSuite::suite)
            .find(|suite| names(*suite).iter().any(|n| *n == word.to_ascii_uppercase()));
        found.ok_or_else(|| {
            let known: Vec<String> = all.iter().map(|suite| names(suite.suite())[0].clone()).collect();
            format!("{}: `{word}` is none of {}", option::CIPHERS, known.join(", "))
        })
    };
    let found = words.map(one).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(format!("{}: it names none", option::CIPHERS)) } else { Ok(found) }
}

/// What it is called: in the RFCs, and by OpenSSL.
fn names(suite: CipherSuite) -> [String; 2] {
    let standard = suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_");
    let short = standard.trim_start_matches("TLS_").replace("WITH_", "").replace('_', "-");
    let short = short.replace("AES-", "AES").replace("POLY1305-SHA256", "POLY1305");
    [standard, short]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Spoken, String> {
        Spoken::read(&options.iter().map(|(name, value)| (format!("atoll.dev/{name}"), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_asked_for_is_spoken_and_nothing_else() {
        let all = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        for (name, options, newest_only, expected) in [
            ("nothing said", &[][..], false, "3 of 1.3, 6 before"),
            ("the newest alone", &[("min-version", "1.3")], true, "3 of 1.3, 6 before"),
            (
                "OpenSSL's names",
                &[("ciphers", "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")],
                false,
                "3 of 1.3, 2 before",
            ),
            (
                "the standard's, and one of TLS 1.3",
                &[("ciphers", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls_aes_256_gcm_sha384")],
                false,
                "1 of 1.3, 1 before",
            ),
            ("one of TLS 1.3 alone", &[("ciphers", "TLS_AES_128_GCM_SHA256")], false, "1 of 1.3, 0 before"),
        ] {
            let spoken = read(options).unwrap();
            let suites = &spoken.provider(&all).cipher_suites;
            let newest = suites.iter().filter(|suite| suite.tls13().is_some()).count();
            assert_eq!(format!("{newest} of 1.3, {} before", suites.len() - newest), expected, "{name}");
            assert_eq!(spoken.versions().len() == 1, newest_only, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        for (options, why) in [
            (&[("min-version", "1.1")][..], "atoll.dev/min-version: `1.1` is neither 1.2 nor 1.3"),
            (&[("min-version", "")], "atoll.dev/min-version: `` is neither"),
            (
                &[("ciphers", "ECDHE-RSA-AES128-GCM-SHA256:DES-CBC3-SHA")],
                "atoll.dev/ciphers: `DES-CBC3-SHA` is none of TLS_",
            ),
            (&[("ciphers", " , ")], "atoll.dev/ciphers: it names none"),
            (&[("min-verison", "1.3")], "`atoll.dev/min-verison` is none of atoll.dev/client-ca"),
            (&[("client-verify", "optional")], "`atoll.dev/client-verify` is nothing without atoll.dev/client-ca"),
        ] {
            let said = read(options).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
        assert!(
            Spoken::read(&BTreeMap::from([("other.dev/x".to_owned(), "y".to_owned())])).is_ok(),
            "not ours to judge"
        );
    }
}
