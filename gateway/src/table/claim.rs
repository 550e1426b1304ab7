//! Who holds which port and host name: the first to claim keeps it. Pure. Source: Gateway API (listener conflicts, ListenerSet precedence).

use std::collections::{BTreeMap, BTreeSet};

use super::{Host, ListenerDraft, Protocol, Slot};
use crate::status::Verdict;

/// Claims so far.
#[derive(Default)]
pub(super) struct Claims {
    hosts: BTreeMap<(Slot, Option<Host>), String>,
    protocols: BTreeMap<Slot, (Protocol, String)>,
    /// Ports beside the shared ones.
    pub(super) ports: BTreeSet<Slot>,
}

impl Claims {
    /// Claims all slots of a listener, or says who has one of them.
    pub(super) fn claim(&mut self, gateway: &str, listener: &mut ListenerDraft) {
        let who = format!("{gateway} listener {}", listener.spec.name);
        let conflict = listener.slots.iter().find_map(|slot| self.conflict(*slot, listener));
        if let Some((reason, why)) = conflict {
            listener.conflicted = Verdict::new("Conflicted", true, reason, why);
            return;
        }
        for slot in &listener.slots {
            self.protocols.entry(*slot).or_insert_with(|| (listener.protocol, who.clone()));
            self.hosts.insert((*slot, listener.host.as_ref().map(Host::claimed)), who.clone());
            if !matches!(slot, Slot::Http | Slot::Https) {
                self.ports.insert(*slot);
            }
        }
    }

    fn conflict(&self, slot: Slot, listener: &ListenerDraft) -> Option<(&'static str, String)> {
        if let Some((protocol, first)) = self.protocols.get(&slot)
            && *protocol != listener.protocol
        {
            let why = format!("port {}: another protocol is served there for {first}", listener.port);
            return Some(("ProtocolConflict", why));
        }
        let holder = self.hosts.get(&(slot, listener.host.as_ref().map(Host::claimed)))?;
        Some(("HostnameConflict", format!("port and host name are held by {holder}")))
    }
}
