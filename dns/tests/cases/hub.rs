//! A stand-in for the hub, for updates of zones: it decides by the rules that the hub has (`atoll_api::update`) and keeps the records in
//! memory. What the hub does beyond that (objects, leaders, replays) is tried with the real one in `tests/zones/`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use atoll_api::records;
use atoll_api::topology::{RecordsFacts, Topology, ZoneFacts};
use atoll_api::update::{self, Content};
use atoll_wire::follow::{Line, Snapshot};
use atoll_wire::v1::zones_server::{Zones, ZonesServer};
use atoll_wire::v1::{ZoneUpdate, ZoneUpdated};
use futures::StreamExt as _;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// What it does with updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Stores them, and tells.
    Stores,
    /// Stores them, and tells nobody.
    Keeps,
    /// Says nothing.
    Hangs,
    /// Can't be reached.
    Away,
    /// Can't store.
    Full,
}

/// The hub.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Kept>);

struct Kept {
    manner: Mutex<Manner>,
    stored: Mutex<BTreeMap<String, RecordsFacts>>,
    /// By how much the serial of each zone has grown.
    changes: Mutex<BTreeMap<String, u32>>,
    topology: OnceLock<watch::Sender<Snapshot>>,
}

impl Hub {
    /// A hub, and the line to it.
    pub(crate) async fn new() -> (Self, Line) {
        let hub = Self(Arc::new(Kept {
            manner: Mutex::new(Manner::Stores),
            stored: Mutex::default(),
            changes: Mutex::default(),
            topology: OnceLock::new(),
        }));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let incoming = futures::stream::iter([Ok::<_, io::Error>(far)]).chain(futures::stream::pending());
        let serving = tonic::transport::Server::builder().add_service(ZonesServer::new(hub.clone()));
        tokio::spawn(serving.serve_with_incoming(incoming));
        let channel = atoll_wire::channel::over(near, "hub").await.unwrap();
        (hub, Line::over(channel))
    }

    /// Whom it tells.
    pub(crate) fn tells(&self, topology: watch::Sender<Snapshot>) {
        let _ = self.0.topology.set(topology);
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.0.manner.lock().unwrap() = manner;
    }

    /// Puts what it has stored into a topology.
    pub(crate) fn fill(&self, topology: &mut Topology) {
        for (at, facts) in self.0.stored.lock().unwrap().iter() {
            topology.records.insert(at.clone(), Arc::new(facts.clone()));
        }
        for (zone, changes) in self.0.changes.lock().unwrap().iter() {
            if let Some(facts) = topology.zones.get(zone) {
                let next = ZoneFacts { serial: facts.serial + changes, ..ZoneFacts::clone(facts) };
                topology.zones.insert(zone.clone(), Arc::new(next));
            }
        }
    }

    /// What it has stored, as `owner ttl TYPE data`.
    pub(crate) fn stored(&self) -> Vec<String> {
        let stored = self.0.stored.lock().unwrap();
        let all = stored.values().flat_map(|facts| records::of_endpoints(&facts.endpoints, |why| panic!("{why}")));
        let mut lines: Vec<String> =
            all.map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect();
        lines.sort();
        lines
    }

    fn store(&self, asked: &ZoneUpdate) -> Result<(String, i64), (u32, String)> {
        let no = |refusal: update::Refusal| (u32::from(u16::from(refusal.code)), refusal.why);
        let sender = self.0.topology.get().expect("the stage is set");
        let topology = Arc::clone(&sender.borrow().topology);
        let facts = topology.zones.get(&asked.zone).ok_or((9, "no such Zone".to_owned()))?;
        let sections = update::read(&asked.message).map_err(no)?;
        let at = format!("atoll-system/update-{}", asked.zone);
        let held = self.0.stored.lock().unwrap().get(&at).cloned().unwrap_or_default();
        let own = records::of_endpoints(&held.endpoints, |_| ());
        let mut fixed = records::own(&facts.spec, facts.file()).records;
        fixed.extend(records::head(&sections.zone, &facts.spec.soa, &facts.spec.ns, 0, &fixed));
        let content = Content { apex: &sections.zone, fixed: &fixed, own: &own };
        let next = update::apply(&content, &sections.prerequisites, &sections.updates).map_err(no)?;
        if next == own {
            return Ok((at, held.revision));
        }
        let kept = RecordsFacts { endpoints: records::to_endpoints(&next), revision: held.revision + 1 };
        let revision = kept.revision;
        self.0.stored.lock().unwrap().insert(at.clone(), kept.clone());
        *self.0.changes.lock().unwrap().entry(asked.zone.clone()).or_default() += 1;
        if *self.0.manner.lock().unwrap() == Manner::Stores {
            let grown = ZoneFacts { serial: facts.serial + 1, ..ZoneFacts::clone(facts) };
            sender.send_modify(|snapshot| {
                let mut next = Topology::clone(&snapshot.topology);
                next.version.generation += 1;
                next.records.insert(at.clone(), Arc::new(kept));
                next.zones.insert(asked.zone.clone(), Arc::new(grown));
                snapshot.topology = Arc::new(next);
            });
        }
        Ok((at, revision))
    }
}

#[tonic::async_trait]
impl Zones for Hub {
    async fn update(&self, request: Request<ZoneUpdate>) -> Result<Response<ZoneUpdated>, Status> {
        let manner = *self.0.manner.lock().unwrap();
        match manner {
            Manner::Away => return Err(Status::unavailable("nobody is here")),
            Manner::Hangs => std::future::pending().await,
            Manner::Full => {
                let full = ZoneUpdated { rcode: 2, why: "no room".to_owned(), ..ZoneUpdated::default() };
                return Ok(Response::new(full));
            }
            Manner::Stores | Manner::Keeps => {}
        }
        let answer = match self.store(request.get_ref()) {
            Ok((object, revision)) => ZoneUpdated { object, revision, ..ZoneUpdated::default() },
            Err((rcode, why)) => ZoneUpdated { rcode, why, ..ZoneUpdated::default() },
        };
        Ok(Response::new(answer))
    }
}
