//! The demo members of atoll up: controllers, echo backends, DNS, OCI registry.
