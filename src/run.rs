//! `multilangd FILE…`: one application, or several in one process.

use std::path::PathBuf;
use std::sync::Arc;

use multilangd::config::Config;
use multilangd::exit::Exit;
use multilangd::status::Watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::cli::Words;
use crate::files::{self, File};
use crate::log::complain;
use crate::{configured, random_id, signal, start_daemon_log};

mod application;
#[cfg(feature = "local")]
pub(crate) mod local;
mod several;

use application::{Failure, Host};

/// Runs the applications of the files until `stop`.
pub(crate) async fn daemon(paths: &[PathBuf], words: &Words, stop: CancellationToken) -> Exit {
    let started = async {
        let files = files::read_all(paths, words).await?;
        match <[File; 1]>::try_from(files) {
            Ok([file]) => Box::pin(one(&file, words, stop)).await,
            Err(files) => {
                let all = several::configured(files, words, false)?;
                Box::pin(several::run(all, Arc::new(|_: &mut Config| {}), stop)).await
            }
        }
    };
    Box::pin(started).await.err().unwrap_or(Exit::Clean)
}

/// An application that has the process to itself.
async fn one(file: &File, words: &Words, stop: CancellationToken) -> Result<(), Exit> {
    let resolved = file.resolved();
    start_daemon_log(&resolved)?;
    let config = configured(resolved, &file.name, words, &random_id()?)?;
    let run = async {
        let program = application::program(&config)?;
        let watch = Watch::start(&config).map_err(Failure::of(Exit::Taken))?;
        let mut reporting = JoinSet::new();
        reporting.spawn(signal::log_status(Arc::new(watch.subject.clone())).in_current_span());
        application::run(&config, program, &watch.subject, &Host::default(), stop).await
    };
    Box::pin(run.instrument(config.span())).await.map_err(|Failure { exit, text }| {
        complain(&text);
        exit
    })
}
