//! The embedded API server: the Kubernetes API over one redb file, or in memory.
