//! Whether this process has run out of file descriptors. What it can't open then says nothing of others: neither that a member is gone, nor
//! that an endpoint is down.

/// `ENFILE` and `EMFILE`: the system's table of files is full, or the process's (errno(3), the same on Linux and the BSDs).
const FULL: [i32; 2] = [23, 24];

/// Whether nothing more can be opened now. Cheap enough to be asked after a failed connect.
#[must_use]
pub fn is_starved() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| error.raw_os_error().is_some_and(|code| FULL.contains(&code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_descriptors_left_is_not_starved() {
        assert!(!is_starved());
    }
}
