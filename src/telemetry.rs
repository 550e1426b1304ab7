//! Logs to stderr; metrics of all parts in one answer.
//!
//! In: `ATOLL_LOG` (as tracing's filters, for example `info,atoll_dns=debug`) and the registries that parts fill. Never writes to stdout,
//! which belongs to commands' output.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use tracing_subscriber::EnvFilter;

use crate::error;

/// Installs logging with this level where `ATOLL_LOG` says nothing.
pub(crate) fn log(default: &str) {
    let said = std::env::var("ATOLL_LOG").ok().filter(|s| !s.is_empty());
    let filter = EnvFilter::try_new(said.as_deref().unwrap_or(default)).unwrap_or_else(|error| {
        error::say(format_args!("ATOLL_LOG: {error}; using `{default}`"));
        EnvFilter::new(default)
    });
    let colour = std::io::stderr().is_terminal();
    quiet_panics();
    // Installed twice only in tests; the first stays.
    let to_stderr = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // Whoever reads the log may have gone; complaining to the same place would be a panic.
    let _ = to_stderr.log_internal_errors(false).try_init();
}

/// A panic below the store's library is a damaged file, which whoever opened it says in other words; the rest is a bug of ours.
pub(crate) fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|at| at.file().contains("/redb-")) {
            tracing::debug!(%panic, "the store's library gave up");
        } else {
            loud(panic);
        }
    }));
}

/// The registries of the parts that run now. A part that starts again gets a new one in its place. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<BTreeMap<String, Registry>>>);

impl Metrics {
    /// A fresh registry for a part.
    pub(crate) fn of(&self, part: &str) -> Registry {
        let registry = Registry::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), registry.clone());
        registry
    }

    /// Everything, in Prometheus' text form: families of one name are one family.
    pub(crate) fn text(&self) -> String {
        let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for registry in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for mut family in registry.gather() {
                match families.get_mut(family.name()) {
                    Some(known) => known.mut_metric().extend(family.take_metric()),
                    None => drop(families.insert(family.name().to_owned(), family)),
                }
            }
        }
        let families: Vec<MetricFamily> = families.into_values().collect();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntGauge, Opts};

    use super::*;

    fn gauge(registry: &Registry, cluster: &str) {
        let gauge = IntGauge::with_opts(Opts::new("atoll_link_up", "h").const_label("cluster", cluster)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
    }

    #[test]
    fn families_of_several_parts_are_shown_once_and_a_restarted_part_replaces_its_own() {
        let metrics = Metrics::default();
        gauge(&metrics.of("agent-a"), "a");
        gauge(&metrics.of("agent-b"), "b");
        gauge(&metrics.of("agent-b"), "b");
        let text = metrics.text();
        assert_eq!(text.matches("# TYPE atoll_link_up").count(), 1, "{text}");
        assert_eq!(text.matches("atoll_link_up{").count(), 2, "{text}");
    }
}
