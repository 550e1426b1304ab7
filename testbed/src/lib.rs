//! Five real Kubernetes clusters as plain processes, for tests.
