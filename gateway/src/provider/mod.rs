//! Kinds of object that make routes. A new one is one file and one row. Pure.

mod httproute;

use crate::table::Draft;

/// A row of the table.
pub(crate) struct Provider {
    /// The kind, as listeners allow it and routes name themselves.
    pub(crate) kind: &'static str,
    /// Attaches every object of the kind to the listeners of the draft, and says what became of it.
    pub(crate) provide: fn(&mut Draft<'_>),
}

/// Every kind that makes routes.
pub(crate) const PROVIDERS: &[Provider] = &[Provider { kind: "HTTPRoute", provide: httproute::provide }];
