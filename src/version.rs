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
        assert_eq!(FEATURES, if cfg!(feature = "local") { "local" } else { "none" });
        assert!(!COMMIT.is_empty());
        assert!([VERSION, COMMIT, TARGET, FEATURES].iter().all(|part| LONG.contains(part)), "{LONG}");
    }
}
