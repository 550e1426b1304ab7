//! Hierarchical DNS: listeners, cache, hierarchy, forward, translate, geo answers, zones.
