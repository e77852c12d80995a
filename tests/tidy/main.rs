//! Rules about the tree, each with its reason.
//!
//! | file | rules about |
//! |---|---|
//! | `source.rs` | the source: the map of modules, what belongs to one place, the size of files |
//! | `generated.rs` | the generated blocks of the documentation: `BLESS=1 cargo test --test tidy` rewrites them |
//! | `circles.rs` | circles between files |
//! | `log_events.rs` | the event codes of log lines |
//! | `pages.rs` | the documentation: links, paths, rows, quoted messages |
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "test code")]

use std::path::{Path, PathBuf};

mod circles;
mod generated;
mod log_events;
mod pages;
mod source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a file, by its path from the root.
fn page(name: &str) -> String {
    read(&root().join(name))
}

fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "dist", ".git", "node_modules"].contains(&name.as_str()) {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["src", "protocol/src", "properties/src"] {
        files(&root().join(folder), &[".rs"], &mut found);
    }
    assert!(found.len() > 50, "the source wasn't found");
    found
}

/// The path from the root, as messages and links show it.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The rows of the first table under a heading of a page, as cells without backticks.
fn table_under(name: &str, heading: &str) -> Vec<Vec<String>> {
    let text = page(name);
    let section = text.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("{name} has no ## {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| cells(row).map(|cell| cell.replace('`', "")).collect()).collect()
}

/// The cells of a row of a table.
fn cells(row: &str) -> impl Iterator<Item = &str> {
    row.strip_prefix('|').unwrap_or(row).strip_suffix('|').unwrap_or(row).split(" | ").map(str::trim)
}
