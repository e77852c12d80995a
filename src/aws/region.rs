//! Whether the region can be requested.

/// Whether this machine may have an instance metadata service, which knows the region: its vendor is EC2, and
/// the service is not disabled.
pub fn may_have_metadata(forbidden: bool) -> bool {
    let vendor = || std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    !forbidden && vendor().contains("Amazon")
}
