//! All settings in force with their sources, as `multilangd check` prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::permissions::{self, Permission};

use super::keys::handle::{Handle, Read};
use super::keys::kcl;
use super::keys::own;
use super::value::Value;
use super::{Remark, Source};

/// A setting in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// The source of the value.
    pub source: Source,
}

/// All settings, by the names of KCL's and multilangd's keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Adds or replaces a setting.
    pub fn put(&mut self, name: &str, value: Value, source: Source) {
        self.0.insert(name.to_owned(), Setting { value, source });
    }

    /// The value of a setting, in the type of its handle.
    pub fn of<T: Read>(&self, key: Handle<T>) -> T::Value {
        T::read(self.value(key.name()))
    }

    /// The source of a setting.
    pub fn source<T>(&self, key: Handle<T>) -> Source {
        self.get(key.name()).map_or(Source::Default, |setting| setting.source)
    }

    /// The setting of that name, where the name comes from a file or from a row of a table.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }

    /// The value of a setting, where its name comes from a row of a table.
    pub(super) fn value(&self, name: &str) -> &Value {
        debug_assert!(self.0.contains_key(name), "unknown setting {name}");
        self.get(name).map_or(&Value::Nothing, |setting| &setting.value)
    }

    /// The settings in the order of the tables, then the other keys in the file.
    pub fn in_order(&self) -> Vec<(&str, &Setting)> {
        let first = kcl::KEYS.iter().map(|key| key.name).chain(own::KEYS.iter().map(|key| key.name));
        let mut names: Vec<&str> = first.filter(|name| self.0.contains_key(*name)).collect();
        let rest: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
        names.extend(rest);
        names.into_iter().filter_map(|name| self.0.get(name).map(|setting| (name, setting))).collect()
    }
}

/// The settings of a file as one JSON object: `settings` by name, each with `value`, `source` and `line`;
/// `set_by`, by the same names, the AWS variable, system property or profile key that sets one;
/// `permissions`, each with `action`, `on` and `when`; `warnings` and `errors`, each with `line`, `key` and
/// `message`.
pub fn json(settings: &Settings, warnings: &[Remark], faults: &[Remark]) -> serde_json::Value {
    let shown: serde_json::Map<String, serde_json::Value> = settings
        .in_order()
        .into_iter()
        .map(|(name, setting)| {
            let value = setting.value.to_json();
            let (source, line) = (setting.source.name(), setting.source.line());
            (name.to_owned(), json!({"value": value, "source": source, "line": line}))
        })
        .collect();
    let set_by: serde_json::Map<String, serde_json::Value> = settings
        .in_order()
        .into_iter()
        .filter_map(|(name, setting)| Some((name.to_owned(), json!(setting.source.set_by()?))))
        .collect();
    let remarks = |remarks: &[Remark]| -> serde_json::Value {
        remarks.iter().map(|one| json!({"line": one.line, "key": one.key, "message": one.text})).collect()
    };
    let permissions: serde_json::Value = permissions::needed(settings)
        .map(|one| json!({"action": one.action, "on": one.on.to_string(), "when": one.when}))
        .collect();
    let (warnings, faults) = (remarks(warnings), remarks(faults));
    json!({
        "settings": shown, "set_by": set_by, "permissions": permissions, "warnings": warnings, "errors": faults,
    })
}

/// The settings as a text table, with a line about the machine.
pub fn text(settings: &Settings, machine: &str, warnings: &[Remark], faults: &[Remark]) -> String {
    let rows: Vec<(&str, String, String)> = settings
        .in_order()
        .into_iter()
        .map(|(name, setting)| (name, setting.value.to_string(), setting.source.to_string()))
        .collect();
    let name_width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let value_width = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0).min(50);
    let mut out = String::new();
    for (name, value, source) in rows {
        let _infallible = writeln!(out, "{name:name_width$}  {value:value_width$}  {source}");
    }
    let _infallible = writeln!(out, "\n{machine}\n\nrequired permissions:");
    for Permission { action, on, when, .. } in permissions::needed(settings) {
        let _infallible = writeln!(out, "  {action} on {on} ({when})");
    }
    for (title, remarks) in [("warnings", warnings), ("errors", faults)] {
        if !remarks.is_empty() {
            let _infallible = writeln!(out, "\n{title}:");
            remarks.iter().for_each(|remark| {
                let _infallible = writeln!(out, "  {remark}");
            });
        }
    }
    out
}
