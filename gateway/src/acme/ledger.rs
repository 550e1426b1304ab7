//! What is known of an order that is open or failed: a Secret in the system namespace, which the next leader goes on with.
//!
//! It holds the key of the certificate until that is issued, where the order is, and how often it failed: a leader that dies asks no CA
//! more often than one that lives.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::object::labels;
use super::{FLEET_LABEL, LABEL};
use crate::ingress::mark;
use crate::objects::Name;

/// What the label says of one, and its type.
const ORDER: &str = "order";
const TYPE: &str = "atoll.dev/acme-order";
const STATE: &str = "order.json";
const KEY: &str = "tls.key";

/// An order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    /// The Secret that it is for, by namespace and name.
    pub(super) secret: Name,
    pub(super) hosts: BTreeSet<String>,
    /// Of the CA.
    pub(super) directory: String,
    /// Where the CA has it; nothing: it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// In a row.
    pub(super) failures: u32,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Timestamp>,
    /// The certificate's key, as PEM, while the order is open.
    #[serde(skip)]
    pub(super) key: Option<String>,
}

/// The name of the object of an order.
pub(super) fn name(secret: &Name) -> String {
    format!("acme-order-{}", mark(&format!("{}/{}", secret.0, secret.1)))
}

/// All orders of a fleet.
#[derive(Clone)]
pub(super) struct Ledger {
    api: Api<Secret>,
    fleet: String,
}

impl Ledger {
    pub(super) fn new(client: &Client, fleet: String) -> Self {
        Self { api: Api::namespaced(client.clone(), SYSTEM_NAMESPACE), fleet }
    }

    /// What is there. One that can't be read is no order.
    pub(super) async fn read(&self) -> kube::Result<BTreeMap<Name, Record>> {
        let labels = format!("{LABEL}={ORDER},{FLEET_LABEL}={}", self.fleet);
        let all = self.api.list(&ListParams::default().labels(&labels)).await?;
        let records = all.into_iter().filter_map(|secret| {
            let mut data = secret.data?;
            let mut record: Record = serde_json::from_slice(&data.get(STATE)?.0).ok()?;
            record.key = data.remove(KEY).and_then(|key| String::from_utf8(key.0).ok());
            Some((record.secret.clone(), record))
        });
        Ok(records.collect())
    }

    /// Keeps an order as it is now.
    pub(super) async fn keep(&self, record: &Record) -> Result<(), Failure> {
        let at = name(&record.secret);
        let state = serde_json::to_vec(record).map_err(|error| Failure::Hub(format!("Secret `{at}`: {error}")))?;
        let mut data = BTreeMap::from([(STATE.to_owned(), ByteString(state))]);
        data.extend(record.key.as_ref().map(|key| (KEY.to_owned(), ByteString(key.clone().into_bytes()))));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(at.clone()),
                labels: Some(labels(ORDER, &[(FLEET_LABEL, &self.fleet)])),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let kept = self.api.patch(&at, &parameters, &Patch::Apply(&secret)).await;
        kept.map(drop).map_err(|error| Failure::hub(&format!("Secret `{SYSTEM_NAMESPACE}/{at}`"), &error))
    }

    /// Forgets an order.
    pub(super) async fn forget(&self, secret: &Name) {
        match self.api.delete(&name(secret), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            // The next leader finds that nobody wants it.
            Err(error) => tracing::debug!(%error, "an order that is over stays for now"),
        }
    }
}
