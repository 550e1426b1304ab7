//! One order, from the CA's word that it takes it to the Secret with the certificate.
//!
//! ```text
//!   new, or where the leader before us stopped ─► challenges shown ─► every replica answers ─► the CA looks ─► key signed ─► Secret
//! ```
//!
//! In: what is wanted, and the order's record. Out: the Secret, or why there is none. Each step is kept in the ledger before the next begins
//! that the CA would not let be done twice. May be dropped at any point. Source: RFC 8555 §7.4, §7.5.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::DNSEndpoint;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::challenge::{self, Challenge};
use super::due::{Due, Facts, due};
use super::failure::{Failure, told};
use super::key;
use super::leader::Acme;
use super::ledger::{Ledger, Record, name};
use super::object;
use super::record::{self, Proof};
use super::secret;
use super::settings::Proving;
use super::wanted::Wanted;

/// The CA looks, and then signs, within this time each.
const LOOKED_MAX: Duration = Duration::from_secs(120);
/// How often it is asked, at first.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What an order needs.
pub(super) struct Ordering {
    pub(super) acme: Arc<Acme>,
    pub(super) account: Account,
    pub(super) ledger: Ledger,
    pub(super) wanted: Wanted,
    pub(super) record: Record,
    /// The certificate that it takes the place of.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

impl Ordering {
    /// Orders, and writes the certificate.
    pub(super) async fn run(mut self) -> Result<Secret, Failure> {
        let directory = self.acme.settings.directory.clone();
        // What is watched may be older than what is there.
        if let Some(there) = secret::read(&self.acme.client, &self.wanted.secret).await? {
            if !secret::is_ours(&there) {
                return Err(Failure::Taken(secret::FOREIGN.to_owned()));
            }
            let same = self.wanted.held.as_ref().is_some_and(|held| held.data == there.data);
            let facts = Facts::of(&there).ok();
            let fresh = due(&self.wanted.hosts, facts.as_ref(), &directory, None, Timestamp::now());
            if !same && matches!(fresh, Due::At(_)) {
                return Ok(there);
            }
        }
        let mut order = self.open().await?;
        let done = self.prove(&mut order).await;
        let chain = match done {
            Ok(()) => self.sign(&mut order).await?,
            Err(failure) => return Err(detailed(failure, &mut order).await),
        };
        let key = self.record.key.as_deref().unwrap_or_default();
        let written = secret::write(&self.acme.client, &self.wanted.secret, &directory, &chain, key).await?;
        self.ledger.forget(&self.wanted.secret).await;
        self.clear().await;
        Ok(written)
    }

    /// The order that was open, or a new one.
    async fn open(&mut self) -> Result<Order, Failure> {
        if let (Some(url), true) = (self.record.url.clone(), self.record.key.is_some()) {
            match self.account.order(url).await {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        return Ok(order);
                    }
                }
                // The CA has none of it: a new one.
                Err(instant_acme::Error::Api(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let order = match self.new_order(self.replaces.clone()).await {
            // What it would take the place of is nothing to the CA, or has a successor: ordered all the same.
            Err(instant_acme::Error::Api(problem)) if self.replaces.is_some() && is_about_replaced(&problem) => {
                self.new_order(None).await?
            }
            other => other?,
        };
        self.record.key = Some(key::generate(self.acme.settings.key)?);
        self.record.url = Some(order.url().to_owned());
        self.ledger.keep(&self.record).await?;
        Ok(order)
    }

    async fn new_order(&self, replaces: Option<CertificateIdentifier<'static>>) -> Result<Order, instant_acme::Error> {
        let names: Vec<Identifier> = self.wanted.hosts.iter().cloned().map(Identifier::Dns).collect();
        let mut new = NewOrder::new(&names);
        if let Some(replaces) = replaces {
            new = new.replaces(replaces);
        }
        if let Some(profile) = &self.acme.settings.profile {
            new = new.profile(profile);
        }
        self.account.new_order(&new).await
    }

    /// Proves that the hosts are ours, unless that is done.
    async fn prove(&self, order: &mut Order) -> Result<(), Failure> {
        if order.state().status != OrderStatus::Pending {
            return Ok(());
        }
        let own = name(&self.wanted.secret);
        let kind = match self.acme.settings.proving {
            Proving::Http => {
                let challenges = challenges(order).await?;
                challenge::show(&self.acme, &own, &challenges).await?;
                challenge::until_answered(&self.acme, &challenges).await?;
                ChallengeType::Http01
            }
            Proving::Dns(spreads) => {
                let proofs = proofs(order).await?;
                record::show(&self.acme, &own, &proofs).await?;
                record::until_given(&self.acme, &proofs, spreads).await?;
                ChallengeType::Dns01
            }
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(kind.clone())
                && challenge.status == ChallengeStatus::Pending
            {
                challenge.set_ready().await?;
            }
        }
        match order.poll_ready(&patience()).await? {
            OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing => Ok(()),
            _ => Err(Failure::Refused("the CA does not find the answer to its challenge".to_owned())),
        }
    }

    /// Has the key signed.
    async fn sign(&self, order: &mut Order) -> Result<String, Failure> {
        if order.state().status == OrderStatus::Ready {
            let key = self.record.key.as_deref().unwrap_or_default();
            order.finalize_csr(&key::request(key, &self.wanted.hosts)?).await?;
        }
        Ok(order.poll_certificate(&patience()).await?)
    }

    /// Takes its challenges away.
    async fn clear(&self) {
        let own = name(&self.wanted.secret);
        clear(&self.acme, |order| order != own).await;
    }
}

/// Takes away what orders that are not open showed.
pub(super) async fn clear(acme: &Acme, open: impl Fn(&str) -> bool) {
    let lease = acme.fleet.lease();
    match acme.settings.proving {
        Proving::Http => object::remove::<ConfigMap>(&acme.client, challenge::CHALLENGE, &lease, open).await,
        Proving::Dns(_) => object::remove::<DNSEndpoint>(&acme.client, record::RECORD, &lease, open).await,
    }
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(ASK_EVERY).backoff(1.5).timeout(LOOKED_MAX)
}

fn is_about_replaced(problem: &instant_acme::Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.ends_with(":alreadyReplaced") || kind.ends_with(":malformed") || kind.ends_with(":unauthorized")
}

/// What is to be answered, for the hosts that are not proven yet.
async fn challenges(order: &mut Order) -> Result<Vec<Challenge>, Failure> {
    let made = |host, challenge: ChallengeHandle<'_>| {
        let answer = challenge.key_authorization().as_str().to_owned();
        Challenge { host, token: challenge.token.clone(), answer }
    };
    open(order, ChallengeType::Http01, "http-01", made).await
}

/// What is to be found in DNS, for the hosts that are not proven yet.
async fn proofs(order: &mut Order) -> Result<Vec<Proof>, Failure> {
    let made = |host, challenge: ChallengeHandle<'_>| Proof { host, value: challenge.key_authorization().dns_value() };
    open(order, ChallengeType::Dns01, "dns-01", made).await
}

async fn open<T>(
    order: &mut Order,
    kind: ChallengeType,
    word: &str,
    made: impl Fn(String, ChallengeHandle<'_>) -> T,
) -> Result<Vec<T>, Failure> {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let host = authorization.identifier().to_string();
        let offered: BTreeSet<String> = authorization.challenges.iter().map(|c| format!("{:?}", c.r#type)).collect();
        let Some(challenge) = authorization.challenge(kind.clone()) else {
            let offered = offered.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Failure::Refused(format!("`{host}`: the CA offers no {word}, but {offered}")));
        };
        all.push(made(host, challenge));
    }
    Ok(all)
}

/// What the CA says of each host that it does not take, where that is why.
async fn detailed(failure: Failure, order: &mut Order) -> Failure {
    let Failure::Refused(why) = failure else { return failure };
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() || authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let host = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        all.extend(problems.map(|problem| format!("`{host}`: {}", told(problem))));
    }
    Failure::Refused(if all.is_empty() { why } else { all.join("; ") })
}
