//! `multilangd test`: runs the conformance kit and prints its report.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use multilangd::config::ChildProtocol;
use multilangd::config::keys::{kcl, own};
use multilangd::config::resolve;
use multilangd::conformance::report::{self, Outcome};
use multilangd::conformance::{self, Settings, case, samples};
use multilangd::daemon;
use multilangd::exit::Exit;
use multilangd::multilang::{Launcher, Program};
use multilangd_protocol::Dialect;

use crate::cli::{Test, Words};
use crate::files::{given, read};
use crate::log::complain;
use crate::{print, start_log};

/// Runs the cases. Exits with 1 if one failed.
pub(crate) async fn test(test: &Test, words: &Words) -> Exit {
    Box::pin(run(test, words)).await.unwrap_or_else(|exit| exit)
}

async fn run(test: &Test, words: &Words) -> Result<Exit, Exit> {
    if test.list {
        let lines =
            case::CASES.iter().map(|case| format!("{:<32} {}\n", case.name, case.about.replace('`', "")));
        return Ok(print(lines.collect::<String>().as_bytes()));
    }
    let cases = conformance::choose(&test.cases, test.records.is_some()).map_err(|unknown| {
        complain(&unknown);
        Exit::Usage
    })?;
    let (program, dialect) = Box::pin(program(test, words)).await?;
    let records = match &test.records {
        Some(file) => records(file)?,
        None => Vec::new(),
    };
    if records.is_empty() && cases.iter().any(|case| case.is_own()) {
        complain(&"the case records-own needs --records FILE");
        return Err(Exit::Usage);
    }
    let launcher = Launcher::start(None).map_err(|error| {
        complain(&format!("failed to start a thread: {error}"));
        Exit::Internal
    })?;
    let (shown, program) = (program.to_string(), program.started_by(launcher));
    let timeout = Duration::from_secs(test.timeout);
    let protocol = match dialect {
        Dialect::Current => "current protocol",
        Dialect::Shutdown => "protocol of KCL versions before 2.1",
    };
    let head =
        format!("testing {shown}: {} cases, {protocol}, {} s for each answer\n", cases.len(), test.timeout);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut printed = print(head.as_bytes());
    let settings = Settings { dialect, timeout, records };
    Box::pin(conformance::run(&program, &cases, &settings, |outcome| {
        if printed == Exit::Clean {
            printed = print(outcome.line(test.strict).as_bytes());
        }
        outcomes.push(outcome);
    }))
    .await;
    if printed == Exit::Clean {
        printed = print(report::summary(&outcomes, test.strict).as_bytes());
    }
    if let Some(file) = &test.junit {
        std::fs::write(file, report::junit(&shown, &outcomes, test.strict)).map_err(|error| {
            complain(&format!("failed to write --junit {}: {error}", file.display()));
            Exit::NoInput
        })?;
    }
    let is_failed = outcomes.iter().any(|outcome| outcome.is_failed(test.strict));
    Ok(if is_failed { Exit::ChildFailed } else { printed })
}

/// The record processor and its protocol, from the command line or the properties file.
async fn program(test: &Test, words: &Words) -> Result<(Program, Dialect), Exit> {
    let mut given = given(words).await;
    let mut name = None;
    if let Some(file) = &test.properties_file {
        name = Some(read(file, words, &mut given)?.display().to_string());
    }
    let resolved = resolve::resolve(&given);
    // The child's output is in the report; a filter shows the log, too.
    if words.options.iter().any(|(key, _)| *key == own::LOG.name()) {
        start_log(&resolved)?;
    }
    let settings = &resolved.settings;
    let search = std::env::var_os("PATH");
    let found = match &name {
        Some(_) => Program::find(&settings.of(kcl::EXECUTABLE).unwrap_or_default(), search.as_deref()),
        None => Program::of(test.command.iter().cloned(), search.as_deref()),
    };
    let program = found.map_err(|error| {
        match &name {
            Some(name) => complain(&format!("{name}: {error}")),
            None => complain(&error.to_string().replacen("executableName: ", "", 1)),
        }
        Exit::Config
    })?;
    let protocol = ChildProtocol::of(&settings.of(own::CHILD_PROTOCOL));
    Ok((program, daemon::dialect(protocol)))
}

fn records(file: &Path) -> Result<Vec<multilangd::record::Record>, Exit> {
    let read = File::open(file).map_err(samples::Unusable::from);
    read.and_then(|file| samples::read(BufReader::new(file))).map_err(|error| {
        complain(&format!("--records {}: {error}", file.display()));
        Exit::NoInput
    })
}
