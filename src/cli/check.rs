//! The arguments of `check` that select a part of its output.

use clap::Args;

/// Parts of the output of `check`; without any, it prints all settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct Aspects {
    /// Call AWS with these settings, and print whether a daemon could work: endpoints, credentials, permissions, stream,
    /// tables, clock and limits. No call has an effect. The last line is the verdict.
    #[arg(long, conflicts_with_all = ["permissions", "diff"])]
    pub(crate) aws: bool,
    /// Print the IAM policy that allows what this file needs.
    #[arg(long, conflicts_with_all = ["diff", "json"])]
    pub(crate) permissions: bool,
    /// Print only the settings that differ from their defaults.
    #[arg(long)]
    pub(crate) diff: bool,
}

impl Aspects {
    /// Whether a part is selected.
    pub(crate) fn is_any(self) -> bool {
        self.aws || self.permissions || self.diff
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parsed;
    use super::*;

    fn aspects(words: &[&str]) -> Option<Aspects> {
        match parsed(&[&["check", "f"], words].concat()) {
            Ok((Command::Check { aspects, .. }, _)) => Some(aspects),
            _ => None,
        }
    }

    #[test]
    fn parts_are_selected_by_options() {
        assert_eq!(aspects(&[]), Some(Aspects::default()));
        assert_eq!(aspects(&["--diff", "--json"]), Some(Aspects { diff: true, ..Aspects::default() }));
        assert!(aspects(&["--permissions"]).unwrap().is_any());
        assert!(aspects(&["--aws", "--json"]).unwrap().aws);
        assert_eq!(aspects(&["--permissions", "--json"]), None, "a policy is JSON");
        assert_eq!(aspects(&["--aws", "--diff"]), None);
    }
}
