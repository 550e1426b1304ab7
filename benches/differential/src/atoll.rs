//! Atoll's DNS server over the same zones, in this process: Zone objects with zone files, as a user would write them.
//!
//! In: zones. Out: a server on a loopback port. Its transfers are allowed to loopback, so that the peers get signed zones from it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use atoll_api::facts::Facts;
use atoll_api::records;
use atoll_api::topology::{Topology, Version, ZoneFacts};
use atoll_dns::{Config, Encrypted, Resources, Server};
use atoll_reach::{Dialer, Listen as _, RelayTable, Routes, System};
use atoll_wire::follow::{Line, Report, Snapshot};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::zones::{NEGATIVE_TTL, SERIAL, Zone};

/// P-256, PKCS#8; nobody's.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOc6ZzG82zAD9iSWy8WzMGFTUybjQEhHVHS4GzN+0FvChRANCAASdItnc3Dw1YEUDQND9TooLHbLclMamEyUMCj2FeU2xfCQPFe4FuITjJS68MdZA0HYHJESLV6+jVoHkd3/pjXJW";

/// A running server.
pub(crate) struct Atoll {
    pub(crate) at: SocketAddr,
    shutdown: CancellationToken,
    _topology: watch::Sender<Snapshot>,
    _report: watch::Receiver<Report>,
    _server: Server,
    task: tokio::task::JoinHandle<()>,
}

impl Atoll {
    /// Serves `zones`.
    pub(crate) async fn start(zones: &[Zone]) -> Result<Self> {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let at = udp.local_addr()?;
        let system = System::default();
        let (topology, followed) =
            watch::channel(Snapshot { topology: Arc::new(topology(zones)?), heard: Some(Instant::now()) });
        let (report, reported) = watch::channel(Report::default());
        let (started, start) = oneshot::channel();
        let resources = Resources {
            topology: followed,
            dialer: Dialer::new(Arc::new(system.clone()), RelayTable::default(), Routes::default()),
            report,
            connect: Arc::new(system.clone()),
            listen: Arc::new(system.clone()),
            udp: vec![udp],
            tcp: system.tcp(at).await?,
            encrypted: Encrypted::default(),
            files: atoll_dns::Files::default(),
            taps: Vec::new(),
            line: Line::dead(),
            cookies: None,
            metrics: prometheus::Registry::new(),
            dir: None,
            started: Some(started),
        };
        let shutdown = CancellationToken::new();
        let ends = shutdown.clone();
        let task = tokio::spawn(async move {
            // Whoever asks next hears of it.
            let _ = atoll_dns::run(Config::default(), resources, ends).await;
        });
        Ok(Self { at, shutdown, _topology: topology, _report: reported, _server: start.await?, task })
    }

    /// Ends it.
    pub(crate) async fn end(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.task.await?)
    }
}

/// The hub's word: a Zone for each; nothing that a file says is left out.
fn topology(zones: &[Zone]) -> Result<Topology> {
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    values.insert("settings".into(), json!({"apex": "atoll.internal", "defaultSet": "prod"}));
    for (n, zone) in zones.iter().enumerate() {
        let apex = zone.apex.text();
        let soa =
            json!({"negativeTtl": NEGATIVE_TTL, "mname": format!("ns1.{apex}"), "rname": format!("hostmaster.{apex}")});
        let spec = json!({
            "apex": apex.trim_end_matches('.'), "soa": soa,
            "allow": {"transfer": [{"cidr": "127.0.0.0/8"}]},
            "zoneFile": {"text": zone.file}, "dnssec": {"enabled": zone.signed},
        });
        let facts = json!({"serial": SERIAL, "spec": spec});
        let read: ZoneFacts = serde_json::from_value(facts.clone())?;
        let faults = records::own(&read.spec, read.file()).faults;
        if !faults.is_empty() {
            return Err(format!("zone {}: {}", zone.apex.text(), faults.join("; ")).into());
        }
        values.insert(format!("zone/z{n}"), facts);
        if zone.signed {
            values.insert(format!("zone-keys/z{n}"), json!({"signing": [{"generation": 1, "pkcs8": KEY}]}));
        }
    }
    let mut facts = Facts::default();
    for (key, value) in &values {
        facts.put(key.as_str(), value);
    }
    let topology = Topology::from_facts(Version { epoch: 1, generation: 1 }, &facts);
    match topology.unread.first() {
        None => Ok(topology),
        Some(key) => Err(format!("fact `{key}` can't be read").into()),
    }
}
