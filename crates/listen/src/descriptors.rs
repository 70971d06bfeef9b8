use std::io;

/// Raises the soft limit of open files to the hard one, and answers it. Shells and service managers leave it at 1,024 for
/// programs that use `select`; each parked claim is a connection, and so a descriptor.
///
/// # Errors
/// When the limit can neither be read nor set.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(rlimit::INFINITY)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = super::raise_descriptor_limit().unwrap();
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        assert_eq!((raised, soft), (hard, hard));
    }
}
