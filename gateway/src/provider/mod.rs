//! Kinds of object that make routes. A new one is one file and one row. Pure.

mod grpcroute;
mod httproute;
mod tcproute;
mod tlsroute;
mod udproute;

use crate::table::Draft;

/// A row of the table.
pub(crate) struct Provider {
    /// The kind, as listeners allow it and routes name themselves.
    pub(crate) kind: &'static str,
    /// Protocols of listeners that take it.
    pub(crate) protocols: &'static [&'static str],
    /// Attaches every object of the kind to the listeners of the draft, and says what became of it.
    pub(crate) provide: fn(&mut Draft<'_>),
}

/// Every kind that makes routes.
pub(crate) const PROVIDERS: &[Provider] = &[
    Provider { kind: httproute::KIND, protocols: &["HTTP", "HTTPS"], provide: httproute::provide },
    Provider { kind: grpcroute::KIND, protocols: &["HTTP", "HTTPS"], provide: grpcroute::provide },
    Provider { kind: tlsroute::KIND, protocols: &["TLS"], provide: tlsroute::provide },
    Provider { kind: tcproute::KIND, protocols: &["TCP"], provide: tcproute::provide },
    Provider { kind: udproute::KIND, protocols: &["UDP"], provide: udproute::provide },
];
