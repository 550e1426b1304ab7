//! The specification's records, by cases.

use serde_json::json;

use super::*;

fn zone() -> Zone {
    let service = |name: &str, spec: serde_json::Value| -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
    };
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let services = [
        service("web", json!({"clusterIP": "127.201.0.7", "ports": ports})),
        service("db", json!({"clusterIP": "None", "ports": ports})),
        service("ext", json!({"type": "ExternalName", "externalName": "www.example.com"})),
    ];
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["127.101.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["127.101.0.3"], "conditions": {"ready": true}},
            {"addresses": ["127.101.0.4"], "conditions": {"ready": false}},
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
    .unwrap();
    Zone::new("cluster.local", Network::of(1), ["shop"].into_iter(), services.iter(), [slice].iter(), 1)
}

fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let reply = zone().answer(&Name::from_ascii(name).unwrap(), kind);
    let soa = reply.authorities.iter().filter(|r| r.record_type() == RecordType::SOA).count();
    let negative = reply.answers.is_empty() && reply.code != ResponseCode::Refused;
    assert_eq!(soa, usize::from(negative), "{name} {kind}: the SOA comes with what is not there");
    (reply.code, reply.answers.iter().map(|r| r.data.to_string()).collect())
}

#[test]
fn every_record_of_the_specification_is_there() {
    use RecordType as T;
    let cases: &[(&str, T, &[&str])] = &[
        ("web.shop.svc.cluster.local.", T::A, &["127.201.0.7"]),
        ("WEB.Shop.svc.cluster.local.", T::A, &["127.201.0.7"]),
        ("_http._tcp.web.shop.svc.cluster.local.", T::SRV, &["0 100 80 web.shop.svc.cluster.local."]),
        ("db.shop.svc.cluster.local.", T::A, &["127.101.0.2", "127.101.0.3"]),
        ("db-0.db.shop.svc.cluster.local.", T::A, &["127.101.0.2"]),
        ("127-101-0-3.db.shop.svc.cluster.local.", T::A, &["127.101.0.3"]),
        (
            "_http._tcp.db.shop.svc.cluster.local.",
            T::SRV,
            &["0 100 8080 db-0.db.shop.svc.cluster.local.", "0 100 8080 127-101-0-3.db.shop.svc.cluster.local."],
        ),
        ("ext.shop.svc.cluster.local.", T::A, &["www.example.com."]),
        ("127-101-0-9.shop.pod.cluster.local.", T::A, &["127.101.0.9"]),
        ("dns-version.cluster.local.", T::TXT, &["1.1.0"]),
        ("cluster.local.", T::NS, &["ns.dns.cluster.local."]),
        ("7.0.201.127.in-addr.arpa.", T::PTR, &["web.shop.svc.cluster.local."]),
        ("2.0.101.127.in-addr.arpa.", T::PTR, &["db-0.db.shop.svc.cluster.local."]),
    ];
    for (name, kind, want) in cases {
        assert_eq!(ask(name, *kind), (ResponseCode::NoError, want.iter().map(ToString::to_string).collect()), "{name}");
    }
}

#[test]
fn what_is_not_there_is_told_apart_from_what_has_no_data_and_from_what_is_not_ours() {
    use ResponseCode as C;
    let cases = [
        ("web.shop.svc.cluster.local.", RecordType::AAAA, C::NoError),
        ("shop.svc.cluster.local.", RecordType::A, C::NoError),
        ("_tcp.web.shop.svc.cluster.local.", RecordType::A, C::NoError),
        ("other.svc.cluster.local.", RecordType::A, C::NXDomain),
        ("api.shop.svc.cluster.local.", RecordType::A, C::NXDomain),
        ("127-101-0-4.db.shop.svc.cluster.local.", RecordType::A, C::NXDomain),
        ("_grpc._tcp.web.shop.svc.cluster.local.", RecordType::SRV, C::NXDomain),
        ("a.b.c.d.e.f.svc.cluster.local.", RecordType::A, C::NXDomain),
        ("9.0.201.127.in-addr.arpa.", RecordType::PTR, C::NXDomain),
        ("0.201.127.in-addr.arpa.", RecordType::PTR, C::NoError),
        ("1.0.0.10.in-addr.arpa.", RecordType::PTR, C::Refused),
        ("example.com.", RecordType::A, C::Refused),
    ];
    for (name, kind, code) in cases {
        assert_eq!(ask(name, kind), (code, vec![]), "{name} {kind}");
    }
}

#[test]
fn a_service_record_brings_the_addresses_of_its_targets() {
    let reply = zone().answer(&Name::from_ascii("_http._tcp.db.shop.svc.cluster.local.").unwrap(), RecordType::SRV);
    let addresses: Vec<_> = reply.additionals.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(addresses, ["127.101.0.2", "127.101.0.3"]);
}
