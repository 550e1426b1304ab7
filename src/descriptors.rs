//! Open files and connections: as many as this process may have.
//!
//! Many systems start programs with 1024 and let them take more. Every port has a bound of its own; those together must be what is met first.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than all bounds together need; some systems allow a billion, which other programs' tables would pay for.
const WANTED: u64 = 65_536;

/// Takes as many as we may. What can't be had is no reason not to start.
pub(crate) fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(WANTED)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(WANTED), hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_allowed_is_taken() {
        raise();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= hard.min(WANTED), "{soft} of {hard}");
    }
}
