//! `multilangd health`: calls the status endpoint of a daemon with these settings.

use std::path::PathBuf;

use multilangd::config::keys::own;
use multilangd::config::resolve::{self, Resolved};
use multilangd::exit::Exit;
use multilangd::health;

use crate::cli::Words;
use crate::files;
use crate::log::complain;

/// Exits with 0 if the answer is 200.
pub(crate) async fn check(paths: &[PathBuf], words: &Words, ready: bool) -> Exit {
    match Box::pin(ask(paths, words, ready)).await {
        Ok(()) => Exit::Clean,
        Err(exit) => exit,
    }
}

async fn ask(paths: &[PathBuf], words: &Words, ready: bool) -> Result<(), Exit> {
    let refuse = |error: &dyn std::fmt::Display| {
        complain(error);
        Exit::ChildFailed
    };
    let files = if paths.is_empty() {
        vec![files::File { name: String::new(), given: files::given(words).await }]
    } else {
        files::read_all(paths, words).await.map_err(|_reported| Exit::ChildFailed)?
    };
    let resolved: Vec<Resolved> = files.iter().map(|file| resolve::resolve(&file.given)).collect();
    // Other settings do not matter to the endpoint.
    let mut faults = resolved.iter().flat_map(|one| &one.faults);
    if let Some(fault) = faults.find(|fault| fault.key.as_deref() == Some(own::STATUS.name())) {
        return Err(refuse(fault));
    }
    let conflicts = files::conflicts(&files, &resolved, false);
    if let Some(conflict) = conflicts.iter().find(|conflict| conflict.keys == [own::STATUS.name(); 2]) {
        return Err(refuse(&conflict.text));
    }
    let status = resolved.first().map(|one| one.settings.of(own::STATUS)).unwrap_or_default();
    let address = health::address(&status).map_err(|error| refuse(&error))?;
    let asked = tokio::task::spawn_blocking(move || health::ask(address, ready)).await;
    asked
        .unwrap_or_else(|error| Err(health::Error::Internal(error.to_string())))
        .map_err(|error| refuse(&error))
}
