//! Rules about the source: the map of modules, what belongs to one place, the size of files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{page, read, root, shown, sources, table_under};

/// The module of a file in the map: `src/lease/take.rs` is in `lease`. None for the roots.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
    (!["main", "lib", "cli", "commands", "files", "log", "run", "signal"].contains(&first.as_str()))
        .then_some(first)
}

/// Every name in `crate::name` outside comments.
fn imports(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.insert(name);
            }
        }
    }
    names
}

const MAP: &str = "docs/architecture.md";

/// Imports go one way, so that a module can be understood, tested and replaced without those above it.
#[test]
fn modules_import_only_what_the_map_allows() {
    let rows: BTreeMap<String, BTreeSet<String>> = table_under(MAP, "Modules")
        .into_iter()
        .map(|cells| {
            let [module, _, uses] = <[String; 3]>::try_from(cells).unwrap();
            (module, uses.split(", ").filter(|name| *name != "-").map(str::to_owned).collect())
        })
        .collect();
    let mut faults = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources() {
        let Some(module) = module_of(&path) else { continue };
        let Some(allowed) = rows.get(&module) else {
            faults.push(format!("{}: {MAP} has no row for {module}", shown(&path)));
            continue;
        };
        for name in imports(&read(&path)) {
            if name != module && !allowed.contains(&name) {
                faults.push(format!("{}: {module} may not use {name}", shown(&path)));
            }
            used.entry(module.clone()).or_default().insert(name);
        }
    }
    for (module, allowed) in &rows {
        let used = used.get(module).cloned().unwrap_or_default();
        for name in allowed.difference(&used) {
            faults.push(format!("{MAP}: {module} does not use {name}"));
        }
        if !root().join(format!("src/{module}.rs")).exists() {
            faults.push(format!("{MAP}: there is no module {module}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_no_cycle(&rows);
}

fn assert_no_cycle(rows: &BTreeMap<String, BTreeSet<String>>) {
    let mut done = BTreeSet::new();
    while done.len() < rows.len() {
        let ready: Vec<_> =
            rows.iter().filter(|(name, uses)| !done.contains(*name) && uses.is_subset(&done)).collect();
        assert!(!ready.is_empty(), "the map has a cycle among those that are not in {done:?}");
        let ready: Vec<String> = ready.into_iter().map(|(name, _)| name.clone()).collect();
        done.extend(ready);
    }
}

/// Names that only some places may use.
#[test]
fn restricted_names_stand_only_in_their_places() {
    let rules: [(&str, &[&str], &str); 6] = [
        ("aws_", &["src/aws", "src/local"], "SDK types stop at the adapters"),
        (
            "tokio::process",
            &["src/multilang/process.rs", "src/multilang/launcher.rs"],
            "one place starts processes",
        ),
        (
            "kill_process",
            &["src/multilang/process.rs"],
            "one place signals processes, and it refuses ids up to 1",
        ),
        ("process::exit", &[], "only main decides how the process ends, by returning"),
        (
            "SystemTime::now",
            &["src/clock.rs", "src/local/kinesis/clock.rs"],
            "wall time has one door a program",
        ),
        ("unsafe ", &[], "no code needs it"),
    ];
    let mut faults = Vec::new();
    for path in sources() {
        let name = shown(&path);
        let text = read(&path);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for (word, places, why) in rules {
                if line.contains(word) && !places.iter().any(|place| name.starts_with(place)) {
                    faults.push(format!("{name}: {word:?} ({why}): {}", line.trim()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A profile's entry for a package takes the place of the whole profile for it: with an entry of its own the daemon is
/// linked without the profile's `strip`, and a quarter larger.
#[test]
fn profiles_have_no_entry_for_the_daemon() {
    let text = page("Cargo.toml");
    let mut profile = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            profile = line.trim_matches(['[', ']']).to_owned();
        }
        let entry = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
        let names_it = profile.ends_with(".package") && entry == "multilangd"
            || profile.starts_with("profile.") && profile.ends_with(".package.multilangd");
        assert!(!(profile.starts_with("profile.") && names_it), "[{profile}] {line}");
    }
    let release = text.split("[profile.release]").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(release.contains("strip = \"symbols\""), "{release}");
}

/// The pure crates stay pure: they cannot use what they do not depend on.
#[test]
fn pure_crates_have_no_runtime_and_no_aws() {
    for (name, allowed) in [("protocol", &["itoa", "serde", "serde_json"][..]), ("properties", &[])] {
        let text = read(&root().join(name).join("Cargo.toml"));
        let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap();
        for line in section.lines().filter(|line| line.contains('=')) {
            let dependency = line.split('=').next().unwrap().trim();
            assert!(allowed.contains(&dependency), "{name} depends on {dependency}");
        }
    }
}

/// A file holds one idea; past this many lines it holds two.
#[test]
fn source_files_are_short_and_documented() {
    for path in sources() {
        let lines = read(&path).lines().count();
        assert!(lines <= 600, "{}: {lines} lines", shown(&path));
        assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", shown(&path));
        assert!(read(&path).starts_with("//!"), "{}: no doc of the module", shown(&path));
    }
}
