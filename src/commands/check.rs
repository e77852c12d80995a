//! `multilangd check`: the settings and the errors of properties files.

use std::fmt::Write as _;
use std::path::PathBuf;

use multilangd::aws::{client, http, region};
use multilangd::config::Remark;
use multilangd::config::keys::client::{DYNAMODB_REGION, KINESIS_REGION};
use multilangd::config::keys::handle::{Handle, Text};
use multilangd::config::keys::kcl;
use multilangd::config::resolve::Resolved;
use multilangd::config::sdk::Sdk;
use multilangd::config::settings::{self, Settings};
use multilangd::exit::Exit;
use multilangd::limits::Limits;
use multilangd::multilang::{Launcher, Program};

use crate::cli::Words;
use crate::{files, print};

/// Prints the settings of files. Starts nothing and calls nothing.
pub(crate) async fn check(paths: &[PathBuf], words: &Words, json: bool) -> Exit {
    let files = match files::read_all(paths, words).await {
        Ok(files) => files,
        Err(exit) => return exit,
    };
    let mut resolved: Vec<Resolved> = files.iter().map(files::File::resolved).collect();
    let conflicts = files::conflicts(&files, &resolved, false);
    for (index, one) in resolved.iter_mut().enumerate() {
        look_around(&one.settings, &one.sdk, &mut one.warnings, &mut one.faults);
        one.warnings.extend(words.notices.iter().map(|text| Remark {
            line: None,
            key: None,
            text: (*text).to_owned(),
        }));
        one.faults.extend(conflicts.iter().filter_map(|conflict| conflict.of(index)));
    }
    let limits = if Launcher::restores_limits() { Limits::look() } else { Limits::current() };
    let leases = limits.leases(files.len());
    let is_clean = resolved.iter().all(|one| one.faults.is_empty());
    let shown = if json {
        let object = |one: &Resolved| {
            let mut shown = settings::json(&one.settings, &one.warnings, &one.faults);
            shown["limits"] = serde_json::json!({
                "leases": leases, "openFiles": limits.files, "processes": limits.processes,
            });
            shown["caCertificates"] = http::in_use(&one.sdk.network).into();
            shown
        };
        match resolved.as_slice() {
            [one] => format!("{:#}\n", object(one)),
            several => {
                let all: serde_json::Value = std::iter::zip(&files, several)
                    .map(|(file, one)| {
                        let mut shown = object(one);
                        shown["file"] = file.name.as_str().into();
                        shown
                    })
                    .collect();
                format!("{all:#}\n")
            }
        }
    } else {
        let limits = format!("limits on this machine: {limits}; they allow {leases} leases");
        let text = |one: &Resolved| {
            let machine = format!("{limits}\nCA certificates: {}", http::in_use(&one.sdk.network));
            settings::text(&one.settings, &machine, &one.warnings, &one.faults)
        };
        match resolved.as_slice() {
            [one] => text(one),
            several => {
                let mut out = String::new();
                for (index, (file, one)) in std::iter::zip(&files, several).enumerate() {
                    let line = if index > 0 { "\n" } else { "" };
                    let _infallible = writeln!(out, "{line}{}:\n{}", file.name, text(one));
                }
                out
            }
        }
    };
    if print(shown.as_bytes()) == Exit::Internal {
        return Exit::Internal;
    }
    if is_clean { Exit::Clean } else { Exit::Config }
}

/// Checks what a file cannot contain: whether this machine has a region and the program.
pub(super) fn look_around(
    settings: &Settings,
    sdk: &Sdk,
    warnings: &mut Vec<Remark>,
    faults: &mut Vec<Remark>,
) {
    const REGION: &str = kcl::REGION.name();
    let remark = |key: &str, text: String| Remark { line: None, key: Some(key.to_owned()), text };
    let is_reported =
        |key: &str, faults: &[Remark]| faults.iter().any(|fault| fault.key.as_deref() == Some(key));
    let has_none = |key: Handle<Text>| settings.of(key).is_none();
    if !is_reported(REGION, faults) && [KINESIS_REGION, DYNAMODB_REGION].into_iter().any(has_none) {
        if region::may_have_metadata(sdk.no_metadata) {
            let text = "no region is set, it will be read from the instance metadata".to_owned();
            warnings.push(remark(REGION, text));
        } else {
            faults.push(remark(REGION, client::NoRegion.to_string()));
        }
    }
    if let Err(error) = http::check_bundle(&sdk.network) {
        faults.push(remark("network.caBundle", error.to_string()));
    }
    let search = std::env::var_os("PATH");
    let executable = settings.of(kcl::EXECUTABLE).unwrap_or_default();
    if let (false, Err(error)) =
        (is_reported(kcl::EXECUTABLE.name(), faults), Program::find(&executable, search.as_deref()))
    {
        warnings.push(remark(kcl::EXECUTABLE.name(), format!("on this machine: {error}")));
    }
    warnings.extend(super::letters::remarks(settings));
}
