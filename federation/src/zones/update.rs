//! Updates of zones (RFC 2136), as DNS servers pass them on: authorised again, applied, stored in one object, then acknowledged.
//!
//! In: the message, the key and address that the DNS server saw. Out: a code; where something changed, the object and the generation of
//! it that holds the change. What updates make in Zone `z` is DNSEndpoint `atoll-system/update-z`, written whole with the version that
//! was read: a message is done or not, and two never mix. Never acknowledges what isn't stored.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use atoll_api::kinds::{DNSEndpoint, DNSEndpointSpec, MANAGED_BY, SYSTEM_NAMESPACE, Zone};
use atoll_api::records;
use atoll_api::update::{self, Content, Refusal, Sections};
use atoll_wire::v1::{self, zones_server::Zones};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

use super::fixed::Readings;
use super::{file, plain, served};
use crate::error::is_conflict;
use crate::objects::Objects;

/// Updates that wait for their turn; more are refused and tried again by their clients.
const WAITING_MAX: usize = 64;
/// When somebody else changed the object meanwhile.
const TRIES: usize = 5;
/// Everything, waiting included: clients give up after a few seconds.
const WITHIN: Duration = Duration::from_secs(3);
/// The object, as JSON: stores take 1.5 MiB.
const OBJECT_BYTES_MAX: usize = 1 << 20;

/// Twice the fudge that clients use.
const REMEMBERED: Duration = Duration::from_secs(600);
const REMEMBERED_MAX: usize = 8192;

const SERVFAIL: u32 = 2;
const REFUSED: u32 = 5;
const NOTAUTH: u32 = 9;

/// Stores updates.
pub(crate) struct ZonesService {
    client: Client,
    objects: Arc<Objects>,
    waiting: Semaphore,
    turn: Mutex<()>,
    readings: std::sync::Mutex<Readings>,
    recent: std::sync::Mutex<Recent>,
}

/// The signed updates of late, by MAC, and what they were answered: within the time that a signature holds nobody can play one again
/// (RFC 8945 §10), and a client that did not hear us gets the same answer.
#[derive(Default)]
struct Recent(VecDeque<(Instant, Vec<u8>, v1::ZoneUpdated)>);

impl Recent {
    fn find(&mut self, mac: &[u8], now: Instant) -> Option<v1::ZoneUpdated> {
        while self.0.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) > REMEMBERED) {
            self.0.pop_front();
        }
        self.0.iter().find(|(_, held, _)| held == mac).map(|(.., answer)| answer.clone())
    }

    fn note(&mut self, mac: &[u8], now: Instant, answer: &v1::ZoneUpdated) {
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, mac.to_vec(), answer.clone()));
    }
}

/// Why an update is not done.
struct Refused(u32, String);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(u32::from(u16::from(refusal.code)), refusal.why)
    }
}

impl ZonesService {
    pub(crate) fn new(client: Client, objects: Arc<Objects>) -> Self {
        Self {
            client,
            objects,
            waiting: Semaphore::new(WAITING_MAX),
            turn: Mutex::new(()),
            readings: std::sync::Mutex::default(),
            recent: std::sync::Mutex::default(),
        }
    }

    async fn update(&self, asked: &v1::ZoneUpdate) -> Result<(String, i64), Refused> {
        let _waits = self.waiting.try_acquire().map_err(|_| Refused(SERVFAIL, "too many updates at once".into()))?;
        let sections = update::read(&asked.message)?;
        let zones = served(&self.objects);
        self.readings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keep(|name| zones.iter().any(|z| z.name_any() == name));
        let zone = zones.into_iter().find(|z| z.name_any() == asked.zone);
        let zone = zone.ok_or_else(|| Refused(NOTAUTH, format!("Zone `{}`: there is none", asked.zone)))?;
        if records::absolute(&zone.spec.apex).as_ref() != Some(&sections.zone) {
            return Err(Refused(NOTAUTH, format!("Zone `{}` is not {}", asked.zone, sections.zone)));
        }
        authorise(&zone, asked)?;
        let work = async {
            let _turn = self.turn.lock().await;
            for _ in 0..TRIES {
                if let Some(stored) = self.attempt(&zone, &sections).await? {
                    return Ok(stored);
                }
            }
            Err(Refused(SERVFAIL, "the records change too often".into()))
        };
        timeout(WITHIN, work).await.unwrap_or_else(|_| Err(Refused(SERVFAIL, "not stored in time".into())))
    }

    /// One attempt; `None` when somebody else was faster.
    async fn attempt(&self, zone: &Zone, sections: &Sections) -> Result<Option<(String, i64)>, Refused> {
        let name = format!("update-{}", zone.name_any());
        let at = format!("{SYSTEM_NAMESPACE}/{name}");
        let api: Api<DNSEndpoint> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let unread = |e: kube::Error| Refused(SERVFAIL, format!("DNSEndpoint {at}: {e}"));
        let held = api.get_opt(&name).await.map_err(unread)?;
        let endpoints = held.as_ref().map(|o| o.spec.endpoints.as_slice()).unwrap_or_default();
        let own = records::of_endpoints(endpoints, |why| tracing::warn!(object = at, why, "record left out"));
        let fixed = self.fixed(zone, &name);
        let content = Content { apex: &sections.zone, fixed: &fixed, own: &own };
        let next = update::apply(&content, &sections.prerequisites, &sections.updates)?;
        let revision = held.as_ref().and_then(|o| o.metadata.generation).unwrap_or_default();
        if next == own {
            return Ok(Some((at, revision)));
        }
        let spec = DNSEndpointSpec { endpoints: records::to_endpoints(&next) };
        if serde_json::to_vec(&spec).map_or(0, |json| json.len()) > OBJECT_BYTES_MAX {
            return Err(Refused(REFUSED, format!("DNSEndpoint {at} would be longer than {OBJECT_BYTES_MAX} octets")));
        }
        let params = PostParams::default();
        let stored = match held {
            Some(mut object) => {
                object.spec = spec;
                api.replace(&name, &params, &object).await
            }
            None => api.create(&params, &first(zone, &name, spec)).await,
        };
        match stored {
            Ok(object) => Ok(Some((at, object.metadata.generation.unwrap_or_default()))),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => Err(unread(error)),
        }
    }

    /// What updates can't delete: the Zone's own records and those of other DNSEndpoints.
    fn fixed(&self, zone: &Zone, own: &str) -> Arc<[update::Fixed]> {
        let text = file(&self.objects, zone).ok().flatten();
        let mut others = self.objects.records.state();
        others.retain(|object| object.namespace().as_deref() != Some(SYSTEM_NAMESPACE) || object.name_any() != own);
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).of(zone, text.as_deref(), &others)
    }
}

/// The object for the first update; it goes with its Zone.
fn first(zone: &Zone, name: &str, spec: DNSEndpointSpec) -> DNSEndpoint {
    let mut object = DNSEndpoint::new(name, spec);
    object.metadata.namespace = Some(SYSTEM_NAMESPACE.to_owned());
    object.metadata.labels = Some([(MANAGED_BY.to_owned(), "atoll".to_owned())].into());
    object.metadata.owner_references = zone.controller_owner_ref(&()).map(|owner: OwnerReference| vec![owner]);
    object
}

/// The DNS server has checked the signature; who may is the Zone's word.
fn authorise(zone: &Zone, asked: &v1::ZoneUpdate) -> Result<(), Refused> {
    let ip: IpAddr = asked.client.parse().map_err(|_| Refused(REFUSED, "the client has no address".into()))?;
    let key = Some(asked.key.as_str()).filter(|key| !key.is_empty());
    if zone.spec.allow.update.iter().any(|peer| peer.admits(ip, key)) {
        return Ok(());
    }
    let who = key.map_or_else(|| format!("{ip} without a key"), |key| format!("{ip} with key `{}`", plain(key)));
    Err(Refused(REFUSED, format!("{who} may not update {}", zone.spec.apex)))
}

#[tonic::async_trait]
impl Zones for ZonesService {
    async fn update(&self, request: Request<v1::ZoneUpdate>) -> Result<Response<v1::ZoneUpdated>, Status> {
        let site = crate::link::site(&request)?;
        if site != "dns" {
            return Err(Status::permission_denied(format!("only a DNS server may pass on updates, not site {site}")));
        }
        let asked = request.into_inner();
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked.mac.is_empty()
            && let Some(answer) = recent().find(&asked.mac, Instant::now())
        {
            return Ok(Response::new(answer));
        }
        let answer = match Self::update(self, &asked).await {
            Ok((object, revision)) => {
                tracing::info!(zone = asked.zone, client = asked.client, key = asked.key, object, revision, "updated");
                v1::ZoneUpdated { object, revision, ..v1::ZoneUpdated::default() }
            }
            Err(Refused(rcode, why)) => {
                tracing::info!(zone = asked.zone, client = asked.client, key = asked.key, why, "update refused");
                v1::ZoneUpdated { rcode, why, ..v1::ZoneUpdated::default() }
            }
        };
        // What failed may be tried again.
        if !asked.mac.is_empty() && answer.rcode != SERVFAIL {
            recent().note(&asked.mac, Instant::now(), &answer);
        }
        Ok(Response::new(answer))
    }
}
