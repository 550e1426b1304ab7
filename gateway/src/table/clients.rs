//! Whom a listener asks for certificates, and by whose word they count. Pure.
//!
//! In: what a Gateway (`tls.frontend`) or the listener itself (`tls.options`) says, ConfigMaps and Secrets. Out: its check, or why nobody's
//! certificate could be checked: then it is not served. Source: Gateway API, GEP-91.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::ingress::option;
use atoll_api::kinds::gateway::{FrontendTlsValidation, Gateway, ObjectReference};
use kube::ResourceExt as _;

use super::backend::Problem;
use super::build::Input;
use super::grant::{From, To, permits};
use super::listener::{ListenerDraft, Owner};
use crate::status::Verdict;
use crate::tls::{Asks, Authorities, ClientCheck, Keys};

/// Nobody's certificate could be checked.
pub(super) const NO_AUTHORITY: &str = "NoValidCACertificate";

/// How the Gateway wants certificates of clients checked at a port.
pub(crate) fn validation(gateway: &Gateway, port: i32) -> Option<&FrontendTlsValidation> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|p| p.port == port);
    own.map_or(&frontend.default, |p| &p.tls).validation.as_ref()
}

/// Finds the authorities whose certificates clients must have. A listener without any of them is not served.
pub(super) fn check_clients(input: &Input<'_>, owner: Owner<'_>, listener: &mut ListenerDraft, keys: &mut Keys) {
    if let Some(named) = listener.spec.tls.as_ref().and_then(|tls| tls.options.get(option::CLIENT_CA)).cloned() {
        return check_named(input, owner, listener, keys, &named);
    }
    let Some(said) = validation(owner.gateway, listener.spec.port) else { return };
    let namespace = owner.gateway.namespace().unwrap_or_default();
    let found = said.ca_certificate_refs.iter().map(|r| authorities(input, &namespace, r, keys));
    let (mut trusted, mut first) = (Vec::new(), None);
    for one in found {
        match one {
            Ok(one) => trusted.push(one),
            Err(problem) => drop(first.get_or_insert(problem)),
        }
    }
    if let Some(problem) = first {
        listener.resolved = Verdict::new("ResolvedRefs", false, problem.reason, problem.message);
    }
    if trusted.is_empty() {
        let why = "no authority that certificates of clients are checked against can be used";
        listener.accepted = Verdict::new("Accepted", false, NO_AUTHORITY, why);
        return;
    }
    let asks = if said.mode.as_deref() == Some("AllowInsecureFallback") { Asks::Never } else { Asks::Always };
    listener.clients = Some(ClientCheck { trusted, asks, depth: None });
}

/// The same, of a listener that names a Secret itself, by its options.
fn check_named(input: &Input<'_>, owner: Owner<'_>, listener: &mut ListenerDraft, keys: &Keys, named: &str) {
    let options = listener.spec.tls.as_ref().map(|tls| tls.options.clone()).unwrap_or_default();
    match vouching(input, owner, keys, named).and_then(|trusted| asked(&options).map(|asks| (trusted, asks))) {
        Ok((trusted, (asks, depth))) => listener.clients = Some(ClientCheck { trusted: vec![trusted], asks, depth }),
        Err(why) => listener.accepted = Verdict::new("Accepted", false, NO_AUTHORITY, why),
    }
}

fn asked(options: &BTreeMap<String, String>) -> Result<(Asks, Option<usize>), String> {
    let asks = match options.get(option::CLIENT_VERIFY).map(String::as_str) {
        None => Asks::Always,
        Some("optional") => Asks::IfShown,
        Some("unchecked") => Asks::Never,
        Some(other) => return Err(format!("{}: `{other}` is neither optional nor unchecked", option::CLIENT_VERIFY)),
    };
    let depth = options
        .get(option::CLIENT_DEPTH)
        .map(|depth| depth.parse().map_err(|_| format!("{}: `{depth}` is no number", option::CLIENT_DEPTH)));
    Ok((asks, depth.transpose()?))
}

/// The authorities in a Secret, as `name` or `namespace/name`.
fn vouching(input: &Input<'_>, owner: Owner<'_>, keys: &Keys, named: &str) -> Result<Arc<Authorities>, String> {
    let (at, name) = named.split_once('/').unwrap_or((owner.namespace, named));
    let from = From { kind: owner.kind, namespace: owner.namespace };
    if !permits(&input.objects.grants, from, To { group: "", kind: "Secret", namespace: at, name }) {
        return Err(format!("Secret `{at}/{name}`: no ReferenceGrant there permits it"));
    }
    let secret = input.objects.secrets.get(at, name).ok_or_else(|| format!("Secret `{at}/{name}`: does not exist"))?;
    keys.vouching(secret).map_err(|why| format!("Secret `{at}/{name}`: {why}"))
}

fn authorities(
    input: &Input<'_>,
    namespace: &str,
    reference: &ObjectReference,
    keys: &mut Keys,
) -> Result<Arc<Authorities>, Problem> {
    let ObjectReference { group, kind, name, .. } = reference;
    let at = reference.namespace.as_deref().unwrap_or(namespace);
    if !(group.is_empty() && kind == "ConfigMap") {
        return Err(Problem::new("InvalidCACertificateKind", format!("{kind} `{at}/{name}` is no ConfigMap")));
    }
    let from = From { kind: "Gateway", namespace };
    if !permits(&input.objects.grants, from, To { group, kind, namespace: at, name }) {
        let why = format!("ConfigMap `{at}/{name}`: no ReferenceGrant there permits it");
        return Err(Problem::new("RefNotPermitted", why));
    }
    let invalid = |why: String| Problem::new("InvalidCACertificateRef", format!("ConfigMap `{at}/{name}`: {why}"));
    let map = input.objects.config(at, name).ok_or_else(|| invalid("does not exist".to_owned()))?;
    keys.authorities(map).map_err(invalid)
}
