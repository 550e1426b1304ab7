//! The ConfigMaps `tcp-services` and `udp-services` of ingress-nginx: ports, each with the Service behind it. Pure.
//!
//! In: their data, `port: namespace/service:port`. Out: listeners of the Gateway, routes, and what isn't carried out. Source: ingress-nginx,
//! "Exposing TCP and UDP services".

use std::collections::BTreeMap;

use super::Options;
use super::read::Finding;
use crate::kinds::gateway::{
    AllowedRoutes, BackendObjectReference, BackendRef, L4Rule, Listener, ParentReference, RouteNamespaces,
};

/// Both ConfigMaps' data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// Ports of TCP.
    pub tcp: BTreeMap<String, String>,
    /// Ports of UDP.
    pub udp: BTreeMap<String, String>,
}

/// A port that is passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// TCPRoute or UDPRoute.
    pub kind: &'static str,
    /// Of the Service, and of the route.
    pub namespace: String,
    /// What the route is called: `tcp-9000`.
    pub name: String,
    /// Where it is attached.
    pub parent: ParentReference,
    /// Its one rule.
    pub rule: L4Rule,
}

/// What the ConfigMaps become.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Streams {
    /// Of the Gateway.
    pub listeners: Vec<Listener>,
    /// A route each.
    pub streams: Vec<Stream>,
    /// By `tcp-services` or `udp-services`.
    pub findings: Vec<(&'static str, Finding)>,
}

/// Translates both.
pub fn streams(data: &Data, options: &Options) -> Streams {
    let mut out = Streams::default();
    for (map, protocol, kind, all) in
        [("tcp-services", "TCP", "TCPRoute", &data.tcp), ("udp-services", "UDP", "UDPRoute", &data.udp)]
    {
        for (port, written) in all {
            match one(port, written, protocol, kind, options) {
                Ok((listener, stream)) => {
                    out.listeners.push(listener);
                    out.streams.push(stream);
                }
                Err(why) => {
                    let way = if protocol == "TCP" { "TCPRoute" } else { "UDPRoute" };
                    out.findings.push((map, Finding { what: port.clone(), why, way, closes: false }));
                }
            }
        }
    }
    out
}

fn one(
    port: &str,
    written: &str,
    protocol: &str,
    kind: &'static str,
    options: &Options,
) -> Result<(Listener, Stream), String> {
    let number: u16 = port.trim().parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("`{port}` is no port"))?;
    let form = || format!("`{written}` is not NAMESPACE/SERVICE:PORT with the number of a port");
    let (namespace, rest) = written.trim().split_once('/').filter(|(at, _)| !at.is_empty()).ok_or_else(form)?;
    let mut parts = rest.split(':');
    let service = parts.next().filter(|name| !name.is_empty()).ok_or_else(form)?;
    let target: u16 = parts.next().and_then(|p| p.trim().parse().ok()).filter(|p| *p > 0).ok_or_else(form)?;
    if parts.any(|word| !word.trim().is_empty()) {
        let ways = "gateway.proxyProtocol of the configuration, TrafficPolicy proxyProtocol";
        return Err(format!("`{written}`: PROXY is not carried out for one port: {ways}"));
    }
    let name = format!("{}-{number}", protocol.to_ascii_lowercase());
    let from = RouteNamespaces { from: Some("All".to_owned()), selector: None };
    let listener = Listener {
        name: name.clone(),
        hostname: None,
        port: number.into(),
        protocol: protocol.to_owned(),
        tls: None,
        allowed_routes: Some(AllowedRoutes { namespaces: Some(from), kinds: Vec::new() }),
    };
    let parent = ParentReference {
        namespace: Some(options.namespace.clone()),
        name: options.name.clone(),
        section_name: Some(name.clone()),
        ..ParentReference::default()
    };
    let target = BackendObjectReference {
        name: service.to_owned(),
        port: Some(target.into()),
        ..BackendObjectReference::default()
    };
    let rule = L4Rule { name: None, backend_refs: vec![BackendRef { target, weight: None }] };
    Ok((listener, Stream { kind, namespace: namespace.to_owned(), name, parent, rule }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lead_to_services_and_what_is_no_port_is_told() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let tcp = of(&[
            ("9000", "shop/db:5432"),
            ("9001", "shop/db:5432:PROXY"),
            ("9002", "db:5432"),
            ("9003", "shop/db:postgres"),
            ("none", "shop/db:5432"),
        ]);
        let data = Data { tcp, udp: of(&[("53", "infra/dns:53")]) };
        let options = Options { namespace: "system".to_owned(), name: "entry".to_owned(), ..Options::default() };
        let made = streams(&data, &options);
        let told: Vec<String> = made
            .streams
            .iter()
            .map(|s| {
                let to = &s.rule.backend_refs[0].target;
                format!("{} {}/{} -> {}:{}", s.kind, s.namespace, s.name, to.name, to.port.unwrap())
            })
            .collect();
        assert_eq!(told, ["TCPRoute shop/tcp-9000 -> db:5432", "UDPRoute infra/udp-53 -> dns:53"]);
        let listeners: Vec<(i32, &str)> = made.listeners.iter().map(|l| (l.port, l.protocol.as_str())).collect();
        assert_eq!(listeners, [(9000, "TCP"), (53, "UDP")]);
        let refused: Vec<&str> = made.findings.iter().map(|(_, finding)| finding.what.as_str()).collect();
        assert_eq!(refused, ["9001", "9002", "9003", "none"]);
    }
}
