//! Real Kubernetes clusters as plain processes, for tests: kubelets, containerds, pods, CoreDNS, registries, Consul.
//!
//! ```text
//! root namespace ── bridge 10.B.0.1 ─┬─ dev      etcd, kube-apiserver, controllers, scheduler, registry
//!   (tests, hub under test)          │           └ mount namespace: containerd, kubelet, kube-proxy, pods
//!                                    ├─ test … prod-eu … prod-us … dr (no routes to its pods and services)
//!                                    ├─ hub      etcd, kube-apiserver, controllers
//!                                    └─ lab      Consul
//! ```
//! `up`: packages → programs (cache) → block → bridge → each member at once: namespace, files, programs, images, objects,
//! readiness. `down`: everything that carries the testbed's mark, in the other order. Needs root and Linux.

pub mod cluster;
pub mod conformance;
mod down;
pub mod error;
pub mod extras;
mod face;
pub mod faults;
pub mod home;
pub mod image;
mod images;
pub mod manifests;
pub mod member;
mod net;
mod node;
pub mod packages;
mod pki;
pub mod plan;
mod plane;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod registry;
pub mod settle;
mod shell;
pub mod spec;
pub mod status;
mod testbed;

pub use error::{Error, Result};
pub use faults::Target;
pub use member::Member;
pub use spec::MemberSpec;
pub use testbed::{Options, Testbed};
