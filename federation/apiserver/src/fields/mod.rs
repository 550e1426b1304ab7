//! Who owns which field: managedFields and server-side apply.
//! In: objects and their schema as plain values; out: merged objects, new ownership, or the conflicts.
//! Pure: time is an argument. Source: KEP-555 and sigs.k8s.io/structured-merge-diff.

mod managed;
mod set;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use self::managed::{Author, apply, track};
