//! Rules about the documentation: links, paths, rows, quoted messages.

use std::collections::{BTreeMap, BTreeSet};

use crate::{cells, files, page, read, root, shown, sources, table_under};

/// Every page of the documentation, by its path from the root: those of the root itself and of `docs/`.
pub(crate) fn pages() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs/"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    found.sort();
    assert!(found.len() > 12, "{found:?}");
    found
}

/// The lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut within = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        within ^= fence;
        !within && !fence
    })
}

/// The parts of a line in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for heading in prose(text).filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let number = seen.entry(slug.clone()).or_default();
        anchors.insert(if *number == 0 { slug } else { format!("{slug}-{number}") });
        *number += 1;
    }
    anchors
}

/// The targets of the links in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

#[test]
fn relative_links_and_anchors_resolve() {
    let mut faults = Vec::new();
    let mut checked = 0;
    for name in pages() {
        let text = page(&name);
        for target in prose(&text).flat_map(links) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = root().join(&name).parent().unwrap().to_owned();
            let place = if file.is_empty() { root().join(&name) } else { folder.join(file) };
            if !place.exists() {
                faults.push(format!("{name}: {target}: no such file"));
            } else if !anchor.is_empty() && !anchors(&read(&place)).contains(anchor) {
                faults.push(format!("{name}: {target}: no such heading"));
            }
        }
    }
    assert!(checked > 30, "{checked}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a word looks like a path of this repository.
fn is_path(word: &str) -> bool {
    let folders =
        ["src/", "tests/", "docs/", "docker/", "deploy/", "examples/", "benches/", "packaging/", ".ci/"];
    let crates = ["protocol/", "properties/"];
    folders.iter().chain(&crates).any(|folder| word.starts_with(folder))
}

#[test]
fn paths_in_backticks_exist() {
    let mut faults = Vec::new();
    let mut checked = 0;
    for name in pages() {
        let text = page(&name);
        for word in prose(&text).flat_map(quoted).flat_map(str::split_whitespace).filter(|word| is_path(word))
        {
            checked += 1;
            if !root().join(word).exists() {
                faults.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(checked > 30, "{checked}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A page that the index does not name is not found.
#[test]
fn readme_is_short_and_links_every_page() {
    let readme = page("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 170, "README.md has {lines} lines; move details into docs/");
    let index = readme.split("\n## Documentation\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for name in pages().iter().filter(|name| name.starts_with("docs/")) {
        assert!(index.contains(&format!("]({name})")), "README.md's index has no link to {name}");
    }
    for name in ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"] {
        assert!(readme.contains(&format!("]({name})")), "README.md has no link to {name}");
    }
}

/// The two commands that a newcomer types; CI runs the second as it is printed, `tests/process/local.rs` the first.
#[test]
fn readme_has_the_two_commands() {
    let readme = page("README.md");
    for command in ["cargo run -- local", "cargo test"] {
        assert!(readme.contains(&format!("\n```\n{command}\n```\n")), "{command}");
    }
    assert!(page(".ci/run").lines().any(|line| line == "cargo test"));
}

#[test]
fn every_page_begins_with_its_audience() {
    for name in pages() {
        if !name.starts_with("docs/") {
            continue;
        }
        let text = page(&name);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "{name}: no title");
        let first = lines.nth(1).unwrap_or_default();
        assert!(first.starts_with("This page is for "), "{name} begins with {first:?}");
        assert!(text.contains("\n## "), "{name}: no sections");
    }
}

/// A fact that stands twice is changed once.
#[test]
fn no_table_row_stands_on_two_pages() {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in pages() {
        let text = page(&name);
        let lines: Vec<&str> = prose(&text).collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('|')) {
            let is_head = lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
            if is_head || line.starts_with("|---") {
                continue;
            }
            let row: Vec<&str> = cells(line).collect();
            match places.insert(row.join(" | "), name.clone()) {
                Some(other) if other != name => faults.push(format!("{other} and {name}: {line}")),
                _ => {}
            }
        }
    }
    assert!(places.len() > 200, "{}", places.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A message is searched for as it is printed. `…` stands for its variable parts.
#[test]
fn messages_in_troubleshooting_occur_in_the_source() {
    let mut source = String::new();
    for path in sources().iter().filter(|path| path.starts_with(root().join("src"))) {
        let text = read(path);
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            // A string literal may continue on the next line.
            match line.trim_start().strip_suffix('\\') {
                Some(begun) => source.push_str(begun),
                None => source.extend([line.trim_start(), "\n"]),
            }
        }
    }
    let text = page("docs/troubleshooting.md");
    let mut faults = Vec::new();
    let mut checked = 0;
    for row in prose(&text).filter(|line| line.starts_with("| ")) {
        for message in quoted(cells(row).next().unwrap()) {
            checked += 1;
            let missing = |part: &&str| !source.contains(part.trim());
            faults.extend(message.split('…').find(missing).map(|part| format!("{message}: {part}")));
        }
    }
    assert!(checked > 12, "{checked}");
    assert!(faults.is_empty(), "these are nowhere in src:\n{}", faults.join("\n"));
}

#[test]
fn newest_changelog_version_equals_the_package() {
    let manifest = page("Cargo.toml");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    let changelog = page("CHANGELOG.md");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## [")).unwrap();
    assert_eq!(newest.split(']').next().unwrap(), version);
}

/// The published packages that `tests/clients` fetches, with their versions.
fn fetched() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let pair =
        |name: &str, version: &str| (name.to_owned(), version.trim_matches(['"', '=', 'v']).to_owned());
    for line in page("tests/clients/get.sh").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["pypi" | "npm_package", name, version] => drop(found.insert(pair(name, version))),
            _ => {
                let pinned = words.iter().find_map(|word| word.split_once("aws-kinesis-agg=="));
                found.extend(pinned.map(|(_, version)| pair("aws-kinesis-agg", version)));
            }
        }
    }
    let go = page("tests/clients/processors/go/go.mod");
    let (name, version) = go.lines().find_map(|line| line.strip_prefix("require ")?.split_once(' ')).unwrap();
    found.insert(pair(name.rsplit('/').next().unwrap(), version));
    for line in page("tests/clients/processors/rust/Cargo.toml").lines() {
        // Those that are tested have an exact version.
        let exact = line.split_once(" = ").filter(|(_, version)| version.starts_with("\"="));
        found.extend(exact.map(|(name, version)| pair(name, version)));
    }
    found
}

#[test]
fn client_rows_are_the_tested_packages() {
    let rows = table_under("docs/clients.md", "Libraries").into_iter();
    let rows: BTreeSet<(String, String)> = rows.map(|row| (row[0].clone(), row[1].clone())).collect();
    assert!(rows.len() > 8, "{rows:?}");
    assert_eq!(rows, fetched());
}

/// A reader has these files on another machine than the one they were written on.
#[test]
fn no_file_names_a_particular_machine() {
    let mut found = Vec::new();
    let endings = [".rs", ".md", ".toml", ".py", ".js", ".go", ".yaml", ".properties", ".sh", "run"];
    files(root(), &endings, &mut found);
    // Split, so that this file passes its own test.
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    for path in found {
        // Some inputs of the tests are not UTF-8.
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for word in words {
            assert!(!text.contains(word), "{} contains {word}", shown(&path));
        }
    }
}
