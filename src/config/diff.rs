//! The settings that differ from their defaults, as `check --diff` prints them.
//!
//! A default can depend on another setting: that of `tableName` is the application name. So the defaults are those of a
//! file with the required keys alone, without environment, profile and options.

use std::fmt::Write as _;

use serde_json::json;

use super::Source;
use super::keys::handle::{Read as _, Text};
use super::keys::{Absent, kcl};
use super::resolve::{Given, resolve};
use super::settings::Settings;
use super::value::Value;

/// A setting that differs from its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The key.
    pub name: String,
    /// The value in force.
    pub value: Value,
    /// The default.
    pub default: Value,
    /// The source of the value.
    pub source: Source,
}

fn is_required(name: &str) -> bool {
    kcl::KEYS.iter().any(|key| key.name == name && matches!(key.absent, Absent::Required(_)))
}

fn required_text(settings: &Settings, name: &str) -> Option<String> {
    Text::read(settings.value(name))
}

/// The settings that differ from their defaults, in the order of the tables. A required key has no default, so it
/// always differs.
pub fn diff(settings: &Settings) -> Vec<Changed> {
    let required = kcl::KEYS.iter().filter(|key| is_required(key.name));
    let overrides =
        required.filter_map(|key| Some((key.name.to_owned(), required_text(settings, key.name)?))).collect();
    let defaults = resolve(&Given { overrides, ..Given::default() }).settings;
    let changed = settings.in_order().into_iter().filter_map(|(name, setting)| {
        let default = match defaults.get(name) {
            Some(default) if !is_required(name) => default.value.clone(),
            Some(_) | None => Value::Nothing,
        };
        let (value, source) = (setting.value.clone(), setting.source);
        (value != default).then(|| Changed { name: name.to_owned(), value, default, source })
    });
    changed.collect()
}

/// The differences as a text table.
pub fn text(changed: &[Changed]) -> String {
    let head = ["KEY", "VALUE", "DEFAULT", "SOURCE"].map(str::to_owned);
    let rows = changed.iter().map(|one| {
        [one.name.clone(), one.value.to_string(), one.default.to_string(), one.source.to_string()]
    });
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(50);
    let [key, value, default] = [0, 1, 2].map(width);
    let mut out = String::new();
    for row in &rows {
        let [name, set, usual, source] = row;
        let _infallible = writeln!(out, "{name:key$}  {set:value$}  {usual:default$}  {source}");
    }
    out
}

/// The differences as JSON, by key, each with `value`, `default`, `source` and `line`.
pub fn json(changed: &[Changed]) -> serde_json::Value {
    let shown: serde_json::Map<String, serde_json::Value> = changed
        .iter()
        .map(|one| {
            let (value, default) = (one.value.to_json(), one.default.to_json());
            let (source, line) = (one.source.name(), one.source.line());
            let shown = json!({"value": value, "default": default, "source": source, "line": line});
            (one.name.clone(), shown)
        })
        .collect();
    json!(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing(more: &str) -> Vec<(String, String, String, String)> {
        let file = format!("executableName = p\nstreamName = s\napplicationName = app\n{more}");
        let given = Given { bytes: file.into_bytes(), ..Given::default() };
        let shown =
            |one: Changed| (one.name, one.value.to_string(), one.default.to_string(), one.source.to_string());
        diff(&resolve(&given).settings).into_iter().map(shown).collect()
    }

    fn row(name: &str, value: &str, default: &str, source: &str) -> (String, String, String, String) {
        (name.to_owned(), value.to_owned(), default.to_owned(), source.to_owned())
    }

    #[test]
    fn only_required_keys_differ_in_the_smallest_file() {
        let names: Vec<String> = differing("").into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["executableName", "applicationName", "streamName"]);
    }

    #[test]
    fn changed_value_is_listed_with_default_and_line() {
        let found = differing("failoverTimeMillis = 20000\nmaxRecords = 10000\ntableName = app\n");
        assert!(found.contains(&row("failoverTimeMillis", "20000", "10000", "line 4")), "{found:?}");
        let is_listed = |name: &str| found.iter().any(|(found, ..)| found == name);
        assert!(!is_listed("maxRecords") && !is_listed("tableName"), "{found:?}");
        // Derived from the failover time.
        assert!(
            found.contains(&row("leaseAssignmentIntervalMillis", "40000", "20000", "line 4")),
            "{found:?}"
        );
    }

    #[test]
    fn environment_and_options_are_no_defaults() {
        let mut given = Given {
            bytes: b"executableName = p\nstreamName = s\napplicationName = app\n".to_vec(),
            options: vec![(crate::config::keys::own::ON_CHILD_FAILURE.name(), "exit".to_owned())],
            ..Given::default()
        };
        given.variables.insert("AWS_REGION".to_owned(), "eu-west-1".to_owned());
        let found = diff(&resolve(&given).settings);
        let source = |name: &str| found.iter().find(|one| one.name == name).map(|one| one.source.to_string());
        assert_eq!(source("multilangd.onChildFailure").as_deref(), Some("option"));
        assert_eq!(source("kinesisClient.region").as_deref(), Some("AWS_REGION"));
    }

    #[test]
    fn text_and_json_have_the_same_rows() {
        let file = "executableName = p\nstreamName = s\napplicationName = app\ntableName = t\n";
        let given = Given { bytes: file.as_bytes().to_vec(), ..Given::default() };
        let changed = diff(&resolve(&given).settings);
        assert_eq!(text(&changed).lines().count(), changed.len() + 1);
        let shown = json(&changed);
        assert_eq!(shown.as_object().unwrap().len(), changed.len());
        assert_eq!(shown["tableName"], json!({"value": "t", "default": "app", "source": "file", "line": 4}));
        assert_eq!(shown["streamName"]["default"], json!(null));
    }
}
