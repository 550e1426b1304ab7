//! Packs what a member is told into Assignment objects: many Bundles in one, each at most 512 KiB. Pure.
//!
//! A kube-apiserver writes some 170 small objects a second on two cores, so one object a Bundle would be too many. A Bundle stays in the
//! shard that its name hashes to, so that a change rewrites one shard.

use std::collections::BTreeMap;

use atoll_api::kinds::{AssignedBundle, AssignmentSpec};
use sha2::{Digest as _, Sha256};

/// Largest shard, in bytes of JSON.
pub const SHARD_BYTES_MAX: usize = 512 << 10;

/// The shards of `cluster`, by object name.
pub fn shards(cluster: &str, epoch: u64, bundles: Vec<AssignedBundle>) -> BTreeMap<String, AssignmentSpec> {
    let mut count = 1;
    loop {
        let packed = pack(cluster, epoch, &bundles, count);
        let size = |s: &AssignmentSpec| serde_json::to_vec(s).map_or(0, |v| v.len());
        // One Bundle that is too large alone stays alone; its digests are far smaller than its manifests.
        if packed.values().all(|s| s.bundles.len() <= 1 || size(s) <= SHARD_BYTES_MAX) {
            return packed;
        }
        count *= 2;
    }
}

fn pack(cluster: &str, epoch: u64, bundles: &[AssignedBundle], count: u64) -> BTreeMap<String, AssignmentSpec> {
    let mut out: BTreeMap<String, AssignmentSpec> = BTreeMap::new();
    for bundle in bundles {
        let hash =
            Sha256::new().chain_update(&bundle.namespace).chain_update([0]).chain_update(&bundle.name).finalize();
        let slot = u64::from_be_bytes(hash[..8].try_into().expect("SHA-256 has 32 bytes")) % count;
        let shard = out.entry(format!("shard-{count}-{slot}")).or_insert_with(|| AssignmentSpec {
            cluster: cluster.to_owned(),
            epoch,
            bundles: Vec::new(),
        });
        shard.bundles.push(bundle.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shard_is_too_large_and_every_bundle_is_in_one() {
        let bundles: Vec<AssignedBundle> = (0..3000)
            .map(|i| AssignedBundle {
                namespace: "n".into(),
                name: format!("b{i}"),
                revision: "r".repeat(200),
                ..AssignedBundle::default()
            })
            .collect();
        let shards = shards("eu", 1, bundles);
        assert!(shards.len() > 1);
        assert_eq!(shards.values().map(|s| s.bundles.len()).sum::<usize>(), 3000);
        for (name, shard) in &shards {
            assert!(serde_json::to_vec(shard).expect("plain JSON").len() <= SHARD_BYTES_MAX, "{name}");
        }
    }
}
