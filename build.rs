//! Provides the values that `src/version.rs` shows: the commit, the target and the features of the build.
//!
//! The commit comes from `MULTILANGD_COMMIT`, for builds without a repository, otherwise from git. If neither
//! provides it, the build succeeds and the commit is `unknown`.
#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "MULTILANGD_COMMIT";

fn main() {
    // A missing path in this list would rerun the script at each build.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let commit = from_environment().or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=MULTILANGD_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=MULTILANGD_BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=MULTILANGD_BUILD_FEATURES={}", features());
}

/// The commit in the environment variable, if it is valid.
fn from_environment() -> Option<String> {
    let commit = env::var(VARIABLE).ok()?.trim().to_owned();
    if commit.is_empty() {
        return None;
    }
    if commit.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)) {
        return Some(commit);
    }
    println!(
        "cargo::warning={VARIABLE} is ignored: it has other characters than letters, digits and . _ - +"
    );
    None
}

/// The commit that is checked out, if this folder is the root of a repository and not part of another
/// repository.
fn from_git() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let top = PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"])?;
    // The commit changes when another branch is checked out or the branch moves. After `git gc` the branch's
    // file does not exist, but the log of HEAD does.
    let branch = git(&root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(&root, &["rev-parse", "--git-path", name]).map(|path| root.join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Some(commit)
}

/// The output of a git command, if it succeeds and prints something.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The enabled features, sorted and separated by spaces.
fn features() -> String {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let names = names.filter_map(|name| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    let mut names: Vec<String> = names.filter(|name| name != "default").collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
