//! Whether the region can be asked for.

/// Whether this machine may have instance metadata, which can say the region: it calls itself EC2, and
/// asking isn't forbidden.
pub fn may_have_metadata(forbidden: bool) -> bool {
    let vendor = || std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    !forbidden && vendor().contains("Amazon")
}
