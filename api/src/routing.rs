//! Which clusters serve an asker, in which order: one pure function for DNS and gateway.
