//! Routes as they are held. There may be thousands, and of an object's metadata and status tables look at very little: kube's metadata alone weighs
//! as much as a rule. Pure.
//!
//! In: objects as they were decoded. Out: routes, and objects again where a file or a status is written: without labels, annotations and identity,
//! which no table is made of.

use std::num::NonZero;
use std::sync::Arc;

use atoll_api::kinds::gateway::{
    GRPCRoute, GRPCRouteSpec, HTTPRoute, HTTPRouteSpec, ParentReference, RouteParentStatus, RouteStatus, TCPRoute,
    TCPRouteSpec, TLSRoute, TLSRouteSpec, UDPRoute, UDPRouteSpec,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::identify::{Identify, label_parts};
use crate::status::Said;

/// The spec of a kind of routes.
pub(crate) trait Spec: std::fmt::Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The kind as it is written.
    type Object: Resource<DynamicType = ()> + DeserializeOwned + Serialize;

    /// Takes an object apart.
    fn taken(object: Self::Object) -> (ObjectMeta, Self, Option<RouteStatus>);
    /// Puts one together.
    fn object(metadata: ObjectMeta, spec: Self, status: Option<RouteStatus>) -> Self::Object;
    /// What it wants to be attached to.
    fn parents(&self) -> &[ParentReference];
}

macro_rules! specs {
    ($($spec:ident of $kind:ident)*) => {$(
        impl Spec for $spec {
            type Object = $kind;

            fn taken(object: $kind) -> (ObjectMeta, Self, Option<RouteStatus>) {
                (object.metadata, object.spec, object.status)
            }

            fn object(metadata: ObjectMeta, spec: Self, status: Option<RouteStatus>) -> $kind {
                $kind { metadata, spec, status }
            }

            fn parents(&self) -> &[ParentReference] {
                &self.parent_refs
            }
        }

        impl From<$kind> for Route<$spec> {
            fn from(object: $kind) -> Self {
                Self::of(object)
            }
        }
    )*};
}

specs!(HTTPRouteSpec of HTTPRoute GRPCRouteSpec of GRPCRoute TLSRouteSpec of TLSRoute TCPRouteSpec of TCPRoute UDPRouteSpec of UDPRoute);

/// A route.
#[derive(Debug, Clone)]
pub(crate) struct Route<S> {
    /// kind namespace/name; its rules share it.
    pub(crate) label: Arc<str>,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
    generation: Option<NonZero<i64>>,
    /// Its resource version.
    pub(crate) version: Option<Box<str>>,
    pub(crate) spec: S,
    status: Said,
}

impl<S: Spec> Route<S> {
    fn of(object: S::Object) -> Self {
        let (metadata, spec, status) = S::taken(object);
        let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        Self {
            label: format!("{} {namespace}/{name}", S::Object::kind(&())).into(),
            created: metadata.creation_timestamp.map(|time| time.0),
            generation: metadata.generation.and_then(NonZero::new),
            version: metadata.resource_version.map(String::into_boxed_str),
            status: Said::of(status, spec.parents()),
            spec,
        }
    }

    /// One that nobody wrote.
    pub(crate) fn made(namespace: &str, name: &str, created: Timestamp, spec: S) -> Self {
        let (namespace, name) = (Some(namespace.to_owned()), Some(name.to_owned()));
        let creation_timestamp = Some(Time(created));
        Self::of(S::object(ObjectMeta { namespace, name, creation_timestamp, ..ObjectMeta::default() }, spec, None))
    }

    /// Whether `other` is the same, as far as whoever wrote it is concerned.
    pub(super) fn is_as_written(&self, other: &Self) -> bool {
        (self.generation, self.created) == (other.generation, other.created) && self.spec == other.spec
    }

    /// What its status says of parents.
    pub(crate) fn said(&self) -> Vec<RouteParentStatus> {
        self.status.parents(self.spec.parents())
    }

    /// Takes another status over.
    #[cfg(test)]
    pub(crate) fn bear(&mut self, status: RouteStatus) {
        self.status = Said::of(Some(status), self.spec.parents());
    }

    /// The object, as far as it is known.
    fn object(&self) -> S::Object {
        let (namespace, name) = self.place();
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            creation_timestamp: self.created.map(Time),
            generation: self.generation(),
            resource_version: self.version.as_deref().map(str::to_owned),
            ..ObjectMeta::default()
        };
        S::object(metadata, self.spec.clone(), Some(RouteStatus { parents: self.said() }))
    }
}

impl<S> Identify for Route<S> {
    fn place(&self) -> (&str, &str) {
        label_parts(&self.label).1
    }

    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    fn generation(&self) -> Option<i64> {
        self.generation.map(NonZero::get)
    }

    fn succeed(&mut self, before: &Self) {
        self.label = Arc::clone(&before.label);
    }
}

/// As the object is written.
impl<S: Spec> Serialize for Route<S> {
    fn serialize<T: Serializer>(&self, to: T) -> Result<T::Ok, T::Error> {
        self.object().serialize(to)
    }
}

impl<'de, S: Spec> Deserialize<'de> for Route<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        S::Object::deserialize(from).map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn a_route_is_written_as_it_was_read_without_what_no_table_is_made_of() {
        let meta = json!({"namespace": "shop", "name": "web", "creationTimestamp": "2026-11-29T10:00:00Z", "generation": 3,
            "resourceVersion": "7"});
        let mut written = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta,
            "spec": {"hostnames": ["a.example"]}, "status": {"parents": []}});
        let plain = written.clone();
        written["metadata"]["labels"] = json!({"a": "b"});
        written["metadata"]["uid"] = json!("9a6e");
        let route: Route<HTTPRouteSpec> = from_value(written).unwrap();
        assert_eq!((route.place(), &*route.label), (("shop", "web"), "HTTPRoute shop/web"));
        assert_eq!(to_value(&route).unwrap(), plain);
    }
}
