//! `Ingress` of Kubernetes, as it was translated. Pure.

use std::sync::Arc;

use atoll_api::ingress::BackendTls;

use super::httproute;
use crate::attach::{rules, streams};
use crate::objects::{Identify, Kind, Name};
use crate::status::RouteVerdicts;
use crate::table::{Draft, OwnTls, Wants};
use crate::tls::BackendCheck;

pub(super) const ROW: Kind = Kind::Ingress;
pub(super) const KIND: &str = "Ingress";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let derived = Arc::clone(&draft.objects.derived);
    let (Some(live), Some(object)) = (derived.live.get(name), draft.objects.ingresses.at(name).cloned()) else {
        return;
    };
    let part = &live.part;
    let (created, label) = (object.created(), format!("{KIND} {}/{}", name.0, name.1).into());
    let own_tls = part.trusts.as_ref().map(|trusts| own_tls(draft, &name.0, trusts));
    let (mut parents, mut spots) = (Vec::new(), Vec::new());
    for route in &part.routes {
        let route = rules::Route {
            kind: KIND,
            namespace: &name.0,
            label: &label,
            hostnames: &route.spec.hostnames,
            parents: &route.spec.parent_refs,
            wants: if part.grpc { Wants::Grpc } else { Wants::Http },
            created,
            port_names: &part.port_names,
            stand_in: part.stand_in.as_ref(),
            key: part.key.as_deref(),
            own_tls: own_tls.as_ref(),
            rules: route.spec.rules.iter().map(|written| httproute::rule(written, draft.over.is_some())).collect(),
        };
        rules::attach(draft, &route, &mut parents, &mut spots);
    }
    for spec in &part.passed {
        let route = streams::Route {
            kind: KIND,
            namespace: &name.0,
            label: &label,
            hostnames: &spec.hostnames,
            parents: &spec.parent_refs,
            wants: Wants::Tcp,
            created,
            port_names: &part.port_names,
            is_ours: true,
            rules: &spec.rules,
        };
        streams::attach(draft, &route, &mut parents, &mut spots);
    }
    draft.attached(RouteVerdicts::new(object, parents), spots);
}

/// How an Ingress wants TLS spoken to its backends.
fn own_tls(draft: &mut Draft<'_>, namespace: &str, trusts: &BackendTls) -> Result<OwnTls, String> {
    let at = format!("Secret `{namespace}/{}`", trusts.secret);
    let secret = draft.objects.secrets.get(namespace, &trusts.secret).ok_or_else(|| format!("{at}: does not exist"))?;
    let keys = &mut *draft.resolver.keys;
    let trusted = vec![keys.vouching(secret).map_err(|why| format!("{at}: {why}"))?];
    let shows = secret.data.as_ref().is_some_and(|data| data.contains_key("tls.crt"));
    let client = if shows { Some(keys.load(secret).map_err(|(why, _)| format!("{at}: {why}"))?) } else { None };
    let depth = usize::try_from(trusts.depth).ok();
    let check = BackendCheck { trusted, system: false, name: trusts.name.clone(), names: Vec::new(), depth };
    Ok(OwnTls { check, client })
}
