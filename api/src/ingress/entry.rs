//! The Gateway that Ingresses are served at: a listener for each host, a certificate where there is one. Pure.

use super::hosts::{Host, Hosts};
use super::{Options, Translation};
use crate::kinds::gateway::{
    AllowedRoutes, GATEWAY_GROUP, GatewaySpec, Listener, ListenerTls, ParentReference, ReferenceGrantFrom,
    ReferenceGrantSpec, ReferenceGrantTo, RouteNamespaces, SecretObjectReference,
};

/// Before the names of listeners whose TLS is passed on.
pub(super) const PASSED: &str = "tls";

/// The name of a host's listener.
fn name(scheme: &str, host: &str) -> String {
    match host {
        "" => scheme.to_owned(),
        host => format!("{scheme}-{}", host.replace('*', "any")),
    }
}

/// The references to the listeners of a host.
pub(super) fn parents(options: &Options, host: &str, schemes: &[&str]) -> Vec<ParentReference> {
    let of = |scheme: &&str| ParentReference {
        namespace: Some(options.namespace.clone()),
        name: options.name.clone(),
        section_name: Some(name(scheme, host)),
        ..ParentReference::default()
    };
    schemes.iter().map(of).collect()
}

/// The Gateway, and the grants that let it show certificates of other namespaces.
pub(super) fn gateway(options: &Options, hosts: &Hosts, translation: &mut Translation) {
    if hosts.is_empty() {
        return;
    }
    let listeners: Vec<Listener> = hosts.iter().flat_map(|(name, host)| listeners(options, name, host)).collect();
    let spec = GatewaySpec { gateway_class_name: options.class.clone(), listeners, ..GatewaySpec::default() };
    translation.gateway = Some(spec);
    let shown = hosts.values().filter(|host| host.passes.is_none());
    let mut certificates: Vec<&(String, String)> = shown
        .flat_map(|host| host.certificate.iter().chain(host.clients.iter().map(|clients| &clients.secret)))
        .collect();
    certificates.sort_unstable();
    certificates.dedup();
    for (namespace, secrets) in by_namespace(&certificates, &options.namespace) {
        let from = ReferenceGrantFrom {
            group: GATEWAY_GROUP.to_owned(),
            kind: "Gateway".to_owned(),
            namespace: options.namespace.clone(),
        };
        let to = |name: &String| ReferenceGrantTo {
            group: String::new(),
            kind: "Secret".to_owned(),
            name: Some(name.clone()),
        };
        let spec = ReferenceGrantSpec { from: vec![from], to: secrets.iter().map(|name| to(name)).collect() };
        translation.grants.insert(namespace.to_owned(), spec);
    }
}

fn by_namespace<'a>(all: &[&'a (String, String)], own: &str) -> Vec<(&'a str, Vec<&'a String>)> {
    let mut found: Vec<(&str, Vec<&String>)> = Vec::new();
    for (namespace, name) in all.iter().filter(|(namespace, _)| namespace != own) {
        match found.last_mut().filter(|(last, _)| last == namespace) {
            Some((_, names)) => names.push(name),
            None => found.push((namespace, vec![name])),
        }
    }
    found
}

fn listeners(options: &Options, host: &str, of: &Host) -> Vec<Listener> {
    let all = AllowedRoutes {
        namespaces: Some(RouteNamespaces { from: Some("All".to_owned()), selector: None }),
        kinds: Vec::new(),
    };
    let plain = Listener {
        name: name("http", host),
        hostname: (!host.is_empty()).then(|| host.to_owned()),
        port: 80,
        protocol: "HTTP".to_owned(),
        tls: None,
        allowed_routes: Some(all),
    };
    if of.passes.is_some() {
        let tls = ListenerTls { mode: Some("Passthrough".to_owned()), ..ListenerTls::default() };
        let passed = Listener {
            name: name(PASSED, host),
            port: 443,
            protocol: "TLS".to_owned(),
            tls: Some(tls),
            ..plain.clone()
        };
        return vec![plain, passed];
    }
    let asked = of.clients.iter().flat_map(|clients| clients.options(&options.namespace));
    let secure = of.certificate.as_ref().map(|(namespace, secret)| Listener {
        name: name("https", host),
        port: 443,
        protocol: "HTTPS".to_owned(),
        tls: Some(ListenerTls {
            certificate_refs: vec![SecretObjectReference {
                namespace: (*namespace != options.namespace).then(|| namespace.clone()),
                name: secret.clone(),
                ..SecretObjectReference::default()
            }],
            options: asked.collect(),
            ..ListenerTls::default()
        }),
        ..plain.clone()
    });
    std::iter::once(plain).chain(secure).collect()
}
