//! Ownership by itself.
