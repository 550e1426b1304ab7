//! Kinds of balancers that others own: each is told what it is to do, whole, and says by field what of it isn't done. A new one is one file and one
//! row.

mod haproxy;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::provider::{Answer, Push};
use atoll_reach::Connect;
use serde_json::Value;

/// Tells one balancer.
#[async_trait]
pub(crate) trait Drive: Send {
    /// Makes it as `push` says. Saying it again changes nothing.
    ///
    /// # Errors
    /// It can't be reached, or answers what is none: it is to be told again.
    async fn push(&mut self, push: &Push) -> Result<Answer, String>;
}

/// A balancer as the configuration names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its name, in messages and in what it is told.
    pub name: String,
    /// The row of the table.
    pub driver: String,
    /// The GatewayClasses of controller `atoll.dev/provider` that it serves; Services name them as `atoll.dev/CLASS`.
    pub classes: Vec<String>,
    /// What its driver is told.
    pub settings: Value,
}

impl Settings {
    /// # Errors
    /// What of it makes no sense.
    pub fn check(&self) -> Result<(), String> {
        (self.row()?.check)(&self.settings)
    }

    fn row(&self) -> Result<&'static Provider, String> {
        let known: Vec<&str> = PROVIDERS.iter().map(|row| row.driver).collect();
        let found = PROVIDERS.iter().find(|row| row.driver == self.driver);
        found.ok_or_else(|| format!("driver: `{}` is none of {}", self.driver, known.join(", ")))
    }

    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn make(&self, links: &Links) -> Result<Box<dyn Drive>, String> {
        (self.row()?.make)(self, links)
    }
}

/// What drivers are given.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) connect: Arc<dyn Connect>,
    /// The hub's API, for Secrets.
    pub(crate) client: kube::Client,
    /// Whom the machine trusts.
    pub(crate) roots: Arc<rustls::RootCertStore>,
}

/// Makes who tells one, or says what of the settings makes no sense.
type Make = fn(&Settings, &Links) -> Result<Box<dyn Drive>, String>;

/// A row of the table.
pub(crate) struct Provider {
    /// As the configuration names it.
    driver: &'static str,
    check: fn(&Value) -> Result<(), String>,
    make: Make,
}

/// Every kind of balancer.
pub(crate) const PROVIDERS: &[Provider] = &[
    Provider { driver: webhook::DRIVER, check: webhook::check, make: webhook::make },
    Provider { driver: haproxy::DRIVER, check: haproxy::check, make: haproxy::make },
];
