//! The tree obeys its map: rules about the source and the README, each with its reason.
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use multilangd::config::keys::kcl::KEYS;
use multilangd::config::keys::{Use, client, own};
use multilangd::config::permissions::PERMISSIONS;
use multilangd::exit::EXITS;
use multilangd::metrics::prometheus::FAMILIES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn readme() -> String {
    read(&root().join("README.md"))
}

fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git"].contains(&name.as_str()) {
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

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The rows of the README's first table under a heading, as cells without backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = readme();
    let section = text
        .split(&format!("\n## {heading}\n"))
        .nth(1)
        .unwrap_or_else(|| panic!("README has no ## {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

/// The room of a file: `src/lease/take.rs` is in `lease`. None for the roots.
fn room(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
    (!["main", "lib", "cli", "log", "signal"].contains(&first.as_str())).then_some(first)
}

/// Every `crate::name` in code, that is outside comments.
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

/// Imports go one way, so that a part can be understood, tested and replaced without those above it.
#[test]
fn every_module_uses_only_what_the_map_allows() {
    let rows: BTreeMap<String, BTreeSet<String>> = table("Architecture")
        .into_iter()
        .map(|cells| {
            let [module, _, uses] = <[String; 3]>::try_from(cells).unwrap();
            (module, uses.split(", ").filter(|name| *name != "-").map(str::to_owned).collect())
        })
        .collect();
    let mut faults = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources() {
        let Some(room) = room(&path) else { continue };
        let Some(allowed) = rows.get(&room) else {
            faults.push(format!("{}: the README's map has no row for {room}", shown(&path)));
            continue;
        };
        for name in imports(&read(&path)) {
            if name != room && !allowed.contains(&name) {
                faults.push(format!("{}: {room} may not use {name}", shown(&path)));
            }
            used.entry(room.clone()).or_default().insert(name);
        }
    }
    for (module, allowed) in &rows {
        let used = used.get(module).cloned().unwrap_or_default();
        for name in allowed.difference(&used) {
            faults.push(format!("README: {module} doesn't use {name}"));
        }
        if !root().join(format!("src/{module}.rs")).exists() {
            faults.push(format!("README: there is no module {module}"));
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

/// Words that belong to some places only.
#[test]
fn what_belongs_to_one_place_is_named_nowhere_else() {
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
        ("unsafe ", &[], "nothing here needs it"),
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
fn no_profile_has_an_entry_for_the_daemon() {
    let text = read(&root().join("Cargo.toml"));
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

/// The pure crates stay pure: what they can't import, they can't do.
#[test]
fn the_pure_crates_have_no_runtime_and_no_aws() {
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
fn files_are_short_and_modules_have_names() {
    for path in sources() {
        let lines = read(&path).lines().count();
        assert!(lines <= 600, "{}: {lines} lines", shown(&path));
        assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", shown(&path));
        assert!(read(&path).starts_with("//!"), "{}: no doc of the module", shown(&path));
    }
}

/// The README's table must have these rows. With `BLESS=1` in the environment it gets them.
fn assert_table(heading: &str, expected: &[Vec<String>]) {
    let lines: Vec<String> = expected.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    if std::env::var_os("BLESS").is_some() {
        bless(heading, &lines);
    }
    let plain = lines.iter().map(|line| line.replace('`', "")).collect::<Vec<_>>();
    let found: Vec<String> = table(heading).iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    assert!(plain == found, "the README's table under {heading} must be:\n{}", lines.join("\n"));
}

/// Replaces the rows of the first table under a heading. One test at a time writes the file.
fn bless(heading: &str, rows: &[String]) {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap();
    let (path, begin) = (root().join("README.md"), format!("# {heading}\n"));
    let text = read(&path);
    let (before, under) = text.split_at(text.find(&begin).unwrap() + begin.len());
    let head = under.find("\n|---").unwrap() + 1;
    let (head, body) = under.split_at(head + under[head..].find('\n').unwrap() + 1);
    let after = body.lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum();
    std::fs::write(&path, format!("{before}{head}{}\n{}", rows.join("\n"), &body[after..])).unwrap();
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[test]
fn the_readme_lists_every_exit_code() {
    let row = |(_, number, name, why): &(_, u8, &str, &str)| {
        vec![number.to_string(), code(name), (*why).to_owned()]
    };
    assert_table("Exit codes", &EXITS.iter().map(row).collect::<Vec<_>>());
}

fn here(used: Use) -> String {
    match used {
        Use::Yes => "yes".to_owned(),
        Use::NotYet(instead) => format!("not yet: {instead}"),
        Use::NoEffect(why) => format!("no effect, in Java neither: {why}"),
        Use::Never(why) => format!("no: {why}"),
    }
}

#[test]
fn the_readme_lists_every_property() {
    let kcl = KEYS.iter().map(|key| {
        let mut names: Vec<String> = [key.name].iter().chain(key.aliases).map(|name| code(name)).collect();
        names.extend(key.bean.map(|bean| code(&format!("{bean}.{}", key.name))));
        vec![names.join(", "), key.absent.to_string(), key.doc.to_owned(), here(key.used)]
    });
    assert_table("Properties", &kcl.collect::<Vec<_>>());
    let client = client::KEYS.iter().map(|key| vec![code(key.name), key.doc.to_owned(), here(key.used)]);
    assert_table("Keys of the clients", &client.collect::<Vec<_>>());
}

/// A dashboard or an alert that asks for a metric that isn't there is never seen to be wrong.
#[test]
fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    for file in ["grafana.json", "alerts.yaml"] {
        let text = read(&root().join("deploy").join(file));
        let names: BTreeSet<String> = text
            .split("multilangd_")
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
            .collect();
        assert!(names.len() > 4, "{file}");
        for name in names {
            let name = format!("multilangd_{name}");
            assert!(FAMILIES.iter().any(|family| family.name == name), "{file} asks for {name}");
        }
    }
}

/// Who leaves out a permission that is needed finds out when it is too late; one that isn't is a risk.
#[test]
fn the_readme_names_the_permissions_of_all_calls() {
    let mut called = BTreeSet::new();
    for (file, service) in [
        ("kinesis", "kinesis"),
        ("fanout", "kinesis"),
        ("cloudwatch", "cloudwatch"),
        ("dynamodb", "dynamodb"),
        ("dynamodb/ensure", "dynamodb"),
        ("state", "dynamodb"),
        ("table_migration", "dynamodb"),
    ] {
        let text = read(&root().join(format!("src/aws/{file}.rs")));
        let code = text.split("#[cfg(test)]").next().unwrap().split_whitespace().collect::<String>();
        // self.client.get_records() …
        for rest in code.split("client.").skip(1) {
            let Some((name, _)) = rest.split_once("()") else { continue };
            if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                || name == "config"
                || name == "clone"
            {
                continue;
            }
            let action: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            // A transaction needs what its parts need.
            let action = if action == "TransactWriteItems" { "ConditionCheckItem" } else { &action };
            called.insert(format!("{service}:{action}"));
        }
    }
    let rows = PERMISSIONS.iter().map(|one| vec![code(one.action), one.on.to_owned(), one.when.to_owned()]);
    assert_table("Permissions", &rows.collect::<Vec<_>>());
    let named: BTreeSet<String> = PERMISSIONS.iter().map(|one| one.action.to_owned()).collect();
    assert!(called.len() > 12, "{called:?}");
    assert_eq!(called, named);

    let policy: serde_json::Value = serde_json::from_str(&read(&root().join("deploy/policy.json"))).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let allowed = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    let allowed: BTreeSet<String> = allowed.map(|action| action.as_str().unwrap().to_owned()).collect();
    assert_eq!(allowed, named, "deploy/policy.json");
}

#[test]
fn the_readme_lists_every_metric() {
    let rows = FAMILIES.iter().map(|family| {
        let labels = if family.labels.is_empty() { "-".to_owned() } else { family.labels.join(", ") };
        let kind = if family.counter { "counter" } else { "gauge" };
        vec![code(family.name), kind.to_owned(), labels, family.help.to_owned()]
    });
    assert_table("Metrics", &rows.collect::<Vec<_>>());
}

#[test]
fn the_readme_lists_every_setting_of_ours() {
    let rows = own::KEYS.iter().map(|key| {
        let names = [code(key.name), code(&format!("--{}", key.option())), code(&key.variable())];
        vec![names.join(", "), code(key.default), key.doc.to_owned()]
    });
    assert_table("Own settings", &rows.collect::<Vec<_>>());
}

/// A user reads these files on another machine than the one they were written on.
#[test]
fn no_file_speaks_of_a_particular_machine() {
    let mut found = Vec::new();
    files(root(), &[".rs", ".md", ".toml", ".py", ".sh", "run"], &mut found);
    // Split, so that this file passes its own test.
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    for path in found {
        let text = read(&path);
        for word in words {
            assert!(!text.contains(word), "{} speaks of {word}", shown(&path));
        }
    }
}
