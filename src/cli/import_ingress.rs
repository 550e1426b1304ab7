//! `atoll gateway import-ingress -f FILE`: Ingresses as Gateway, routes, policies and grants on stdout, and on stderr what has no target.
//!
//! It is the translation that the gateway serves Ingresses by. Services in the files tell the numbers of ports that have names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use atoll_api::ingress::{Data, INGRESS_CLASS, Options, Stream, export, is_served, streams, translate};
use atoll_api::kinds::gateway::{GATEWAY_GROUP, GatewaySpec};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Globals;
use super::diff::documents;
use super::failure::{Failure, Outcome};
use super::output::{note, yaml};

/// Print Ingresses as Gateway API objects and RoutePolicies.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportIngress {
    /// YAML or JSON; - for stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only Ingresses of this IngressClass; default: all
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// What the Gateway is called
    #[arg(long, value_name = "NAME", default_value = "ingress")]
    gateway: String,
    /// The certificate of hosts that have none: NAMESPACE/NAME of a Secret
    #[arg(long, value_name = "SECRET")]
    default_certificate: Option<String>,
}

impl ImportIngress {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let mut all = Vec::new();
        for file in &self.files {
            all.extend(documents(file)?);
        }
        let classes: Vec<Arc<IngressClass>> = of_kind(&all, "IngressClass")?;
        let services: Vec<Arc<Service>> = of_kind(&all, "Service")?;
        let mut ingresses: Vec<Arc<Ingress>> = of_kind(&all, "Ingress")?;
        if let Some(class) = &self.class {
            ingresses.retain(|ingress| is_served(ingress, &classes, std::slice::from_ref(class)));
        }
        let services_of_ports = Data { tcp: ports(&all, "tcp-services"), udp: ports(&all, "udp-services") };
        if ingresses.is_empty() && services_of_ports == Data::default() {
            return Err(Failure::failed("there is no Ingress in the files".to_owned()));
        }
        let certificate = self.default_certificate.as_deref().map(|said| {
            let parts = said.split_once('/').map(|(at, name)| (at.to_owned(), name.to_owned()));
            parts.ok_or_else(|| Failure::usage(format!("--default-certificate `{said}`: NAMESPACE/NAME")))
        });
        let options = Options {
            namespace: globals.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: self.gateway,
            class: INGRESS_CLASS.to_owned(),
            default_certificate: certificate.transpose()?,
        };
        let port = |namespace: &str, name: &str, port: &str| {
            let at = |s: &&Arc<Service>| s.namespace().as_deref() == Some(namespace) && s.name_any() == name;
            let ports = services.iter().find(at)?.spec.as_ref()?.ports.as_ref()?;
            ports.iter().find(|p| port.is_empty() || p.name.as_deref() == Some(port)).map(|p| p.port)
        };
        let passed = streams(&services_of_ports, &options);
        for (map, finding) in &passed.findings {
            note(format!("ConfigMap {map}: {finding}"));
        }
        let mut translation = translate(&ingresses, &options);
        if !passed.listeners.is_empty() {
            let class = options.class.clone();
            let spec = || GatewaySpec { gateway_class_name: class, ..GatewaySpec::default() };
            translation.gateway.get_or_insert_with(spec).listeners.extend(passed.listeners.clone());
        }
        let mut made = export(&translation, &options, &port);
        let routes: Vec<Value> = passed.streams.iter().map(|stream| route(stream, &made.objects)).collect();
        made.objects.extend(routes);
        for (ingress, finding) in &made.notes {
            let said = finding.said("the RoutePolicy that is printed for it lets nobody in (403)");
            note(format!("Ingress {ingress}: {said}"));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": made.objects});
        let pages = made.objects.iter().map(yaml).collect::<Outcome<Vec<String>>>()?;
        globals.output.show(&list, || pages.join("---\n"))
    }
}

/// The route of a port, at the Gateway that has its listener.
fn route(stream: &Stream, objects: &[Value]) -> Value {
    let mut parent = stream.parent.clone();
    let has = |gateway: &&Value| {
        let listeners = gateway["spec"]["listeners"].as_array();
        listeners.into_iter().flatten().any(|listener| listener["name"] == stream.name.as_str())
    };
    let mut gateways = objects.iter().filter(|object| object["kind"] == "Gateway");
    if let Some(name) = gateways.find(has).and_then(|gateway| gateway["metadata"]["name"].as_str()) {
        name.clone_into(&mut parent.name);
    }
    json!({"apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": stream.kind,
        "metadata": {"name": stream.name, "namespace": stream.namespace},
        "spec": {"parentRefs": [parent], "rules": [stream.rule]}})
}

/// The ports of the ConfigMaps of that name.
fn ports(all: &[Value], name: &str) -> BTreeMap<String, String> {
    let is_it = |object: &&Value| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name;
    let data = all.iter().filter(is_it).filter_map(|object| object["data"].as_object());
    let pairs = data.flatten().filter_map(|(port, to)| Some((port.clone(), to.as_str()?.to_owned())));
    pairs.collect()
}

fn of_kind<K: DeserializeOwned>(all: &[Value], kind: &str) -> Outcome<Vec<Arc<K>>> {
    let found = all.iter().filter(|object| object["kind"] == kind);
    let parsed = found.map(|object| {
        let mut object = object.clone();
        // As `kubectl apply` would have it.
        if kind != "IngressClass" && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        serde_json::from_value(object).map(Arc::new).map_err(|e| Failure::failed(format!("{kind} `{name}`: {e}")))
    });
    parsed.collect()
}
