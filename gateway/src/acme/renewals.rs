//! When the CA wants certificates to be renewed: asked as often as it says, within bounds. Source: RFC 9773 §4.

use std::collections::BTreeMap;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use super::due::Window;
use super::session::after;
use crate::objects::Name;

/// The CA is asked no more, and no less often.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 3600)];
/// And that often where it does not answer.
const ASK_LATER: Duration = Duration::from_secs(3600);
/// Questions at once.
const QUESTIONS_MAX: usize = 8;

/// What it said of one certificate.
struct Renewal {
    id: CertificateIdentifier<'static>,
    window: Option<Window>,
    /// When it is asked again; nothing: it is being asked.
    again: Option<Timestamp>,
}

type Answered = (Name, CertificateIdentifier<'static>, Result<(Window, Duration), instant_acme::Error>);

/// What it said of all.
#[derive(Default)]
pub(super) struct Renewals {
    all: BTreeMap<Name, Renewal>,
    questions: JoinSet<Answered>,
}

impl Renewals {
    /// Within which a certificate is to be renewed; nothing where the CA does not say.
    pub(super) fn window(&self, secret: &Name) -> Option<Window> {
        self.all.get(secret)?.window
    }

    /// What an order names as replaced: where the CA says when to renew, it takes that, too.
    pub(super) fn replaced(&self, secret: &Name) -> Option<CertificateIdentifier<'static>> {
        self.all.get(secret).filter(|renewal| renewal.window.is_some()).map(|renewal| renewal.id.clone())
    }

    /// When it is asked again.
    pub(super) fn again(&self, secret: &Name) -> Option<Timestamp> {
        self.all.get(secret)?.again
    }

    /// Whether it is to be asked of this certificate now.
    pub(super) fn is_to_ask(&mut self, secret: &Name, leaf: &CertificateDer<'static>, now: Timestamp) -> bool {
        // One that names nobody as its issuer can't be asked for.
        let Ok(id) = CertificateIdentifier::try_from(leaf) else { return false };
        if self.all.get(secret).is_none_or(|renewal| renewal.id != id) {
            self.all.insert(secret.clone(), Renewal { id: id.into_owned(), window: None, again: Some(now) });
        }
        let is_time = self.again(secret).is_some_and(|again| again <= now);
        is_time && self.questions.len() < QUESTIONS_MAX
    }

    /// Asks.
    pub(super) fn ask(&mut self, account: Account, secret: &Name) {
        let Some(renewal) = self.all.get_mut(secret) else { return };
        renewal.again = None;
        let (name, id) = (secret.clone(), renewal.id.clone());
        self.questions.spawn(async move {
            let answer = account.renewal_info(&id).await.map(|(info, after)| {
                let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
                let window = info.suggested_window;
                (Window { start: at(window.start.unix_timestamp()), end: at(window.end.unix_timestamp()) }, after)
            });
            (name, id, answer)
        });
    }

    pub(super) fn is_asking(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Waits for an answer, and takes it. Cancel safe.
    pub(super) async fn heard(&mut self) {
        let Some(Ok((name, id, answer))) = self.questions.join_next().await else { return };
        let Some(renewal) = self.all.get_mut(&name).filter(|renewal| renewal.id == id) else { return };
        let pause = match answer {
            Ok((window, pause)) => {
                renewal.window = Some(window);
                pause.clamp(ASK_AGAIN[0], ASK_AGAIN[1])
            }
            // Two thirds of the lifetime, then.
            Err(instant_acme::Error::Unsupported(_)) => ASK_AGAIN[1],
            Err(error) => {
                tracing::debug!(%error, secret = format!("{}/{}", name.0, name.1), "the CA does not say when to renew");
                ASK_LATER
            }
        };
        renewal.again = Some(after(pause));
    }

    /// It is another certificate now.
    pub(super) fn remove(&mut self, secret: &Name) {
        self.all.remove(secret);
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Name) -> bool) {
        self.all.retain(|name, _| is_wanted(name));
    }
}
