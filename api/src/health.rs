//! Whose word on a cluster's health counts.
