//! The region, as far as it can be known without asking anybody.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;

/// The region that the SDK finds without asking anybody: `AWS_REGION`, or the profile's.
pub async fn nearby() -> Option<String> {
    let region = match EnvironmentVariableRegionProvider::new().region().await {
        Some(region) => Some(region),
        None => ProfileFileRegionProvider::new().region().await,
    };
    region.map(|region| region.to_string())
}

/// Whether this machine may have instance metadata, which can say the region: it calls itself EC2, and
/// asking isn't forbidden.
pub fn may_have_metadata() -> bool {
    if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
        return false;
    }
    let vendor = std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    vendor.contains("Amazon")
}
