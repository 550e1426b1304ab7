//! Keeps a local copy of the topology.
