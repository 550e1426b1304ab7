//! RoutePolicies: who gives which filter to a request, and what all requests pass through: the client's address, one form of paths.
//!
//! ```text
//!   follow (watches) ─► judge (guards made, verdicts) ─► Policies, swapped whole ─► chain (of a listener and a rule) ─► passage
//! ```
//!
//! In: RoutePolicies, Secrets, where backends of filters are. Out: for each request a [`Chain`] of guards, found by [`precedence`] and kept.
//! It stands beside the route table: a change of policies builds no table. Until the policies are known nothing is served, and where a
//! filter can't be made its requests are refused: a rejected policy fails closed.

mod address;
pub(crate) mod asking;
pub(crate) mod authorize;
mod backends;
pub(crate) mod buckets;
pub(crate) mod cache;
pub(crate) mod carried;
pub(crate) mod coding;
pub(crate) mod envoy;
mod follow;
pub(crate) mod grpc;
pub(crate) mod held;
pub(crate) mod jose;
mod judge;
pub(crate) mod key;
mod materials;
mod normal;
pub(crate) mod oidc;
mod passage;
pub(crate) mod peer;
pub(crate) mod places;
mod precedence;
pub(crate) mod process;
pub(crate) mod published;
pub(crate) mod ranges;
pub(crate) mod shares;
pub(crate) mod stores;

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;

pub use address::Trusted;
pub(crate) use address::{tell, tells};
pub(crate) use backends::Backends;
pub(crate) use follow::{Follow, follow};
pub(crate) use judge::Judged;
pub(crate) use normal::{is_unreserved, normalise, path as normal};
pub(crate) use passage::{Asked, Back, Behind, back, pass};
pub(crate) use precedence::{Index, Target, levels};

use crate::filter::{Closed, Guard, Permit};
use crate::ingress;
use crate::table::ListenerTable;

/// The newest policies; nothing before they are known.
pub(crate) type Newest = ArcSwapOption<Policies>;

/// The guards of a policy's filters, by filter.
pub(crate) type Guards = HashMap<String, Vec<Arc<dyn Guard>>>;

/// Every policy, ready to work.
#[derive(Default)]
pub(crate) struct Policies {
    index: Index,
    /// In the order of the index.
    guards: Vec<Guards>,
    names: Vec<String>,
    /// Chains made so far, by the hash of their places; a new set of policies begins anew.
    chains: RwLock<HashMap<u64, Vec<Known>>>,
    hasher: std::hash::RandomState,
}

/// A place, and the chain there.
struct Known {
    listener: Arc<str>,
    route: Arc<str>,
    rule: Option<String>,
    chain: Option<Arc<Chain>>,
}

/// The guards of a place, in the order in which they work.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) guards: Vec<Arc<dyn Guard>>,
    /// Which policy gives each filter.
    pub(crate) given: Vec<(String, String)>,
}

impl Chain {
    /// Whether a stream or packets of a client may come, and what is held while they last.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<Vec<Permit>, &'static str> {
        let permits = self.guards.iter().map(|guard| guard.stream(client)).collect::<Result<Vec<_>, _>>()?;
        Ok(permits.into_iter().flatten().collect())
    }
}

impl Policies {
    pub(crate) fn new(index: Index, guards: Vec<Guards>, names: Vec<String>) -> Self {
        Self { index, guards, names, ..Self::default() }
    }

    /// The chain of a rule at a listener; nothing where no policy has to do with it.
    pub(crate) fn chain(
        &self,
        listener: &ListenerTable,
        route: &Arc<str>,
        rule: Option<&String>,
    ) -> Option<Arc<Chain>> {
        if self.index.is_empty() && !rule.is_some_and(|name| ingress::needs_guard(name)) {
            return None;
        }
        let hash = self.hasher.hash_one((&*listener.id, &**route, rule));
        let is_it = |k: &&Known| *k.listener == *listener.id && *k.route == **route && k.rule.as_ref() == rule;
        let known = self.chains.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&hash).and_then(|all| all.iter().find(is_it)) {
            return known.chain.clone();
        }
        drop(known);
        let chain = self.make(listener, route, rule);
        let known = Known {
            listener: Arc::clone(&listener.id),
            route: Arc::clone(route),
            rule: rule.cloned(),
            chain: chain.clone(),
        };
        self.chains.write().unwrap_or_else(PoisonError::into_inner).entry(hash).or_default().push(known);
        chain
    }

    fn make(&self, listener: &ListenerTable, route: &str, rule: Option<&String>) -> Option<Arc<Chain>> {
        let (kind, name) = route.split_once(' ')?;
        let (namespace, name) = name.split_once('/')?;
        let set = listener.set.as_deref().and_then(|set| set.split_once('/'));
        let gateway = listener.gateway.split_once('/')?;
        let place = levels(gateway, set, &listener.name, (kind, namespace, name), rule.map(String::as_str));
        if rule.is_some_and(|name| ingress::needs_guard(name)) && !self.index.has(&place[0]) {
            let why = format!("filters of Ingress `{namespace}/{name}` are not in force yet");
            return Some(Arc::new(Chain { guards: vec![Arc::new(Closed(why))], given: Vec::new() }));
        }
        let winners = self.index.winners(&place);
        let mut chain = Chain { guards: Vec::new(), given: Vec::new() };
        let mut ranked: Vec<(usize, Arc<dyn Guard>)> = Vec::new();
        for (filter, policy) in winners {
            chain.given.push((filter.to_owned(), self.names[policy].clone()));
            if crate::filter::shuts(filter, kind) {
                let why = format!("policy `{}`: filter `{filter}`: a {kind} has nothing to ask", self.names[policy]);
                ranked.push((0, Arc::new(Closed(why))));
                continue;
            }
            let guards = self.guards[policy].get(filter).into_iter().flatten();
            ranked.extend(guards.map(|guard| (crate::filter::rank(filter, &**guard), Arc::clone(guard))));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        chain.given.sort_by_key(|(filter, _)| crate::filter::place(filter));
        chain.guards = ranked.into_iter().map(|(_, guard)| guard).collect();
        (!chain.given.is_empty()).then(|| Arc::new(chain))
    }
}
