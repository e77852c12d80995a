//! The version, commit, target and features of this build, as `build.rs` determined them, for bug reports.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that was built; `unknown` where the build had neither git nor `MULTILANGD_COMMIT`.
pub const COMMIT: &str = env!("MULTILANGD_BUILD_COMMIT");
/// The target triple.
pub const TARGET: &str = env!("MULTILANGD_BUILD_TARGET");
/// The features of the package, separated by blanks; `none` without any.
pub const FEATURES: &str = env!("MULTILANGD_BUILD_FEATURES");

/// All of these, as `--version` prints them.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("MULTILANGD_BUILD_COMMIT"),
    ", target ",
    env!("MULTILANGD_BUILD_TARGET"),
    ", features ",
    env!("MULTILANGD_BUILD_FEATURES"),
    ")"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_names_its_target_and_features() {
        assert!(TARGET.contains(std::env::consts::ARCH), "{TARGET}");
        let features = [("fips", cfg!(feature = "fips")), ("local", cfg!(feature = "local"))];
        let names: Vec<&str> = features.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        assert_eq!(FEATURES, if names.is_empty() { "none".to_owned() } else { names.join(" ") });
        assert!(!COMMIT.is_empty());
        assert!([VERSION, COMMIT, TARGET, FEATURES].iter().all(|part| LONG.contains(part)), "{LONG}");
    }
}
