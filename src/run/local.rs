//! `multilangd local`: the embedded endpoints, and one application or several on them.

use std::sync::Arc;

use multilangd::exit::Exit;
use multilangd::local::run::{self, Endpoints, Error, Home};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::several;
use crate::cli::{Local, Words};
use crate::files::{self, File};
use crate::log::{self, complain};
use crate::{configured, start_daemon_log};

/// Runs until `stop`.
pub(crate) async fn run(local: &Local, words: &Words, stop: CancellationToken) -> Exit {
    Box::pin(run_files(local, words, stop)).await.err().unwrap_or(Exit::Clean)
}

fn refuse(error: Error) -> Exit {
    complain(&error);
    error.exit()
}

async fn run_files(local: &Local, words: &Words, stop: CancellationToken) -> Result<(), Exit> {
    let mut home = Home::new(local.options());
    let file = if local.files().is_empty() {
        let mut given = files::given(words).await;
        given.bytes = home.example().map_err(refuse)?;
        File { name: "the example".to_owned(), given }
    } else {
        match <[File; 1]>::try_from(files::read_all(local.files(), words).await?) {
            Ok([file]) => file,
            Err(files) => return Box::pin(several(files, local, words, stop)).await,
        }
    };
    let resolved = file.resolved();
    start_daemon_log(&resolved)?;
    let config = configured(resolved, &file.name, words, run::WORKER)?;
    let span = config.span();
    Box::pin(run::run(home.logging(log::child_form(&config)), config, stop).instrument(span))
        .await
        .map_err(refuse)
}

/// Several applications on the endpoints.
async fn several(
    files: Vec<File>,
    local: &Local,
    words: &Words,
    stop: CancellationToken,
) -> Result<(), Exit> {
    let options = local.options();
    if options.put.is_some() || options.watch {
        complain(
            &"--put and --watch take one properties file (multilangd put STREAM --local puts the records of a file \
              into one of several streams)",
        );
        return Err(Exit::Usage);
    }
    let mut all = several::configured(files, words, true)?;
    let endpoints = Endpoints::start(&options).await.map_err(refuse)?;
    let urls = endpoints.urls();
    let prepared = async {
        for (_, config) in &mut all {
            run::warn_about_endpoints(config);
            urls.adopt(config);
            endpoints.make_streams(config, options.shards).await?;
        }
        Ok(())
    };
    let prepared: Result<(), Error> = Box::pin(prepared).await;
    let ended = match prepared {
        Ok(()) => Box::pin(several::run(all, Arc::new(move |config| urls.adopt(config)), stop)).await,
        Err(error) => Err(refuse(error)),
    };
    endpoints.stop().await;
    ended
}
