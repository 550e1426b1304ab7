//! Divides replicas over clusters: Webster (Sainte-Laguë) bounded by capacity and skew, ties by rendezvous hash.
//!
//! Source: Webster's method of highest averages; ties as in rendezvous hashing (Thaler and Ravishankar 1998), so that no cluster
//! wins them all. Pure; O(replicas × clusters).

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// One cluster that may take replicas.
#[derive(Debug, Clone)]
pub struct Share<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its votes.
    pub weight: u64,
    /// At most so many.
    pub cap: i32,
    /// Has so many from the start.
    pub kept: i32,
    /// Domains it belongs to, one for each skew rule.
    pub domains: Vec<&'a str>,
}

/// Gives out `replicas` (beyond what is kept). `skews`: for each rule, the largest difference between two domains.
///
/// Returns replicas by cluster, kept ones included, zero ones left out. The sum is less than asked where caps or skews end it.
pub fn divide(uid: &str, shares: &[Share<'_>], replicas: i32, skews: &[i32]) -> BTreeMap<String, i32> {
    let mut seats: Vec<i32> = shares.iter().map(|s| s.kept).collect();
    let ties: Vec<u64> = shares.iter().map(|s| tie(uid, s.name)).collect();
    for _ in 0..replicas {
        let counts = domain_counts(shares, &seats, skews.len());
        let open =
            |i: &usize| seats[*i] < shares[*i].cap && shares[*i].weight > 0 && within(&counts, &shares[*i], skews);
        // Webster: the next seat goes to the largest weight / (2·seats + 1); compared crosswise, so exactly.
        let next = (0..shares.len()).filter(open).max_by(|&a, &b| {
            let (pa, pb) = (u128::from(shares[a].weight) * odd(seats[b]), u128::from(shares[b].weight) * odd(seats[a]));
            pa.cmp(&pb).then(ties[a].cmp(&ties[b])).then_with(|| shares[b].name.cmp(shares[a].name))
        });
        match next {
            Some(i) => seats[i] += 1,
            None => break,
        }
    }
    shares.iter().zip(seats).filter(|(_, n)| *n > 0).map(|(s, n)| (s.name.to_owned(), n)).collect()
}

fn odd(seats: i32) -> u128 {
    u128::try_from(2 * i64::from(seats) + 1).unwrap_or(1)
}

/// A cluster's place in the order of ties for `uid`.
pub fn tie(uid: &str, name: &str) -> u64 {
    let hash = Sha256::new().chain_update(uid).chain_update([0]).chain_update(name).finalize();
    u64::from_be_bytes(hash[..8].try_into().expect("SHA-256 has 32 bytes"))
}

fn domain_counts<'a>(shares: &[Share<'a>], seats: &[i32], rules: usize) -> Vec<BTreeMap<&'a str, i32>> {
    (0..rules)
        .map(|rule| {
            let mut counts = BTreeMap::new();
            for (share, n) in shares.iter().zip(seats) {
                *counts.entry(share.domains[rule]).or_insert(0) += n;
            }
            counts
        })
        .collect()
}

/// Whether one more in `share` keeps every domain within its rule's skew of the emptiest domain.
fn within(counts: &[BTreeMap<&str, i32>], share: &Share<'_>, skews: &[i32]) -> bool {
    counts.iter().zip(skews).enumerate().all(|(rule, (counts, skew))| {
        let least = counts.values().min().copied().unwrap_or(0);
        counts.get(share.domains[rule]).copied().unwrap_or(0) + 1 - least <= *skew
    })
}
