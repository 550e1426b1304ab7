//! Files that a DNS server follows while it runs: the certificate that encrypted transports show, and the secret of cookies.
//!
//! In: paths of the configuration. Out: a resolver for rustls and a channel of secrets, current whenever a file has been replaced (also by
//! Kubernetes' way, a link to another directory). A file that is bad later changes nothing and is said once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwapOption;
use atoll_dns::{Secret, Secrets};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Pair;
use crate::site::Current;

/// Between two looks at a file.
const EVERY: Duration = Duration::from_secs(5);

/// Shows the configured certificate, else the site's own.
pub(super) struct Shown {
    pair: ArcSwapOption<CertifiedKey>,
    site: Current,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("configured", &self.pair.load().is_some()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pair.load_full().or_else(|| Some(self.site.borrow().as_ref()?.certified()))
    }
}

impl Shown {
    /// With the pair of these files, if there are any.
    ///
    /// # Errors
    /// Files that can't be read, or hold no certificate with its key.
    pub(super) fn new(pair: Option<&Pair>, site: Current) -> anyhow::Result<Arc<Self>> {
        let pair = pair.map(|pair| read(pair).and_then(|text| certified(&text))).transpose().context("dns.tls")?;
        Ok(Arc::new(Self { pair: ArcSwapOption::from(pair.map(Arc::new)), site }))
    }

    /// Follows the files until `shutdown`.
    pub(super) async fn follow(self: Arc<Self>, pair: Pair, shutdown: CancellationToken) {
        follow(
            "certificate of encrypted DNS",
            move || read(&pair),
            |text| {
                self.pair.store(Some(Arc::new(certified(text)?)));
                Ok(())
            },
            shutdown,
        )
        .await;
    }
}

type Pem = (String, String);

fn read(pair: &Pair) -> anyhow::Result<Pem> {
    Ok((text(&pair.cert)?, text(&pair.key)?))
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn certified((chain, key): &Pem) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
    if chain.is_empty() {
        bail!("there is no certificate in the PEM text");
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| anyhow!("there is no private key: {e}"))?;
    let provider = CryptoProvider::get_default().context("no provider of cryptography")?;
    CertifiedKey::from_der(chain, key, provider).map_err(|e| anyhow!("the key can't be used with the certificate: {e}"))
}

/// Reads the secret of cookies, and follows it until `shutdown`.
///
/// # Errors
/// A file that can't be read or holds no secret.
pub(super) fn secrets(
    file: PathBuf,
    shutdown: CancellationToken,
) -> anyhow::Result<(watch::Receiver<Option<Secrets>>, impl Future<Output = ()>)> {
    let first = text(&file).and_then(|said| parse(&said)).context("dns.cookieSecretFile")?;
    let (sender, receiver) = watch::channel(Some(first));
    let take = move |said: &String| {
        sender.send_replace(Some(parse(said)?));
        Ok(())
    };
    Ok((receiver, follow("secret of DNS cookies", move || text(&file), take, shutdown)))
}

/// The first line is what cookies are made with, a second one is accepted too.
fn parse(said: &str) -> anyhow::Result<Secrets> {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty()).map(secret);
    let current = lines.next().context("there is no secret in it: write 32 hexadecimal digits")??;
    let previous = lines.next().transpose()?;
    if lines.next().is_some() {
        bail!("there are more than two lines: the secret in use and the one before");
    }
    Ok(Secrets { current, previous })
}

fn secret(line: &str) -> anyhow::Result<Secret> {
    let digit = |at: usize| line.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let octets: Option<Vec<u8>> = (0..line.len()).step_by(2).map(digit).collect();
    // The line itself is not shown: it is a secret.
    octets.and_then(|octets| octets.try_into().ok()).context("a line is not 32 hexadecimal digits")
}

/// Looks at something now and then; `take` gets it when it changed.
async fn follow<T: PartialEq + Send + 'static>(
    what: &'static str,
    read: impl Fn() -> anyhow::Result<T> + Send + Sync + 'static,
    take: impl Fn(&T) -> anyhow::Result<()>,
    shutdown: CancellationToken,
) {
    let read = Arc::new(read);
    let (mut seen, mut said) = (None, String::new());
    loop {
        let look = Arc::clone(&read);
        let found = tokio::task::spawn_blocking(move || look()).await;
        let taken = match found.map_err(anyhow::Error::from).flatten() {
            Ok(found) if seen.as_ref() == Some(&found) => Ok(()),
            Ok(found) => take(&found).map(|()| {
                if seen.replace(found).is_some() {
                    tracing::info!(what, "taken anew");
                }
            }),
            Err(error) => Err(error),
        };
        let why = taken.err().map(|error| format!("{error:#}")).unwrap_or_default();
        // Said once, not at every look.
        if !why.is_empty() && why != said {
            tracing::warn!(what, why, "not taken, the one before stays");
        }
        said = why;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(dir: &Path, name: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let pair = Pair { cert: dir.join("tls.crt"), key: dir.join("tls.key") };
        std::fs::write(&pair.cert, made.cert.pem()).unwrap();
        std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
        pair
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_is_replaced_is_shown_and_a_bad_one_is_not() {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path(), "one.example");
        let shown = Shown::new(Some(&files), watch::channel(None).1).unwrap();
        let end = CancellationToken::new();
        let following = tokio::spawn(Arc::clone(&shown).follow(files.clone(), end.clone()));
        let now = || shown.pair.load_full().unwrap().cert[0].clone();
        let first = now();
        pair(dir.path(), "two.example");
        while now() == first {
            tokio::time::sleep(EVERY).await;
        }
        let second = now();
        std::fs::write(&files.key, "no key").unwrap();
        tokio::time::sleep(EVERY * 3).await;
        assert_eq!(now(), second, "the last good one stays");
        pair(dir.path(), "three.example");
        while now() == second {
            tokio::time::sleep(EVERY).await;
        }
        end.cancel();
        following.await.unwrap();
        std::fs::write(&files.cert, "").unwrap();
        let error = format!("{:#}", Shown::new(Some(&files), watch::channel(None).1).unwrap_err());
        assert!(error.contains("dns.tls") && error.contains("no certificate"), "{error}");
    }

    #[test]
    fn a_secret_is_one_line_or_two() {
        let (one, two) = ("e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962");
        let both = parse(&format!("{one}\n{two}\n")).unwrap();
        assert_eq!((both.current[0], both.previous.unwrap()[0]), (0xe5, 0x44));
        assert_eq!(parse(one).unwrap().previous, None);
        for bad in [
            "",
            "e5e9",
            &one[1..],
            &format!("{one}00"),
            "é5e973e5a6b2a43f48e7dc849e37bfc",
            &format!("{one}\n{one}\n{one}"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "a secret is not shown: {error}");
        }
    }
}
