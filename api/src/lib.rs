//! The language: names, kinds, topology, routing and health rules. Pure.
