//! Open files and connections: as many as this process may have.
//!
//! Many systems start programs with 1024 and let them take more. Every port has a bound of its own; those together must be what is met first.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than all bounds together need; some systems allow a billion, which other programs' tables would pay for.
const WANTED: u64 = 65_536;

/// What everything but clients' connections needs: listeners, files, watches, the hub, probes.
const OTHERS: u64 = 256;

/// Takes as many as we may. What can't be had is no reason not to start.
pub(crate) fn raise() {
    raise_to(WANTED);
}

/// How many of `wanted` connections of clients there may be, each with one to an endpoint, so that something is left for all else.
pub(crate) fn connections(wanted: usize) -> usize {
    let needed = (wanted as u64).saturating_mul(2).saturating_add(OTHERS);
    raise_to(needed);
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    wanted.min(usize::try_from(fitting(soft)).unwrap_or(usize::MAX))
}

/// The connections that fit into so many descriptors: a few even where there is hardly anything.
fn fitting(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(OTHERS) / 2).max(descriptors / 8)
}

fn raise_to(wanted: u64) {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(wanted)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_something_for_all_else() {
        assert_eq!([1024, 300, 65_536].map(fitting), [384, 37, 32_640]);
        assert_eq!(connections(7), 7);
    }

    #[test]
    fn all_that_is_allowed_is_taken() {
        raise();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= hard.min(WANTED), "{soft} of {hard}");
    }
}
