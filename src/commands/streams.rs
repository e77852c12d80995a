//! `multilangd tail` and `multilangd put`: records of a stream, from and to pipes.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use multilangd::aws::client;
use multilangd::aws::kinesis::Stream;
use multilangd::clock;
use multilangd::config::keys::own;
use multilangd::config::resolve;
use multilangd::config::value::Value;
use multilangd::config::{Config, Source};
use multilangd::exit::Exit;
use multilangd::metrics::Discard;
use multilangd::shard::{self, Api as _, ShardId};
use multilangd::stream::{Selection, Wanted};
use multilangd::streams;
use multilangd::tail::{self, shards::From};
use tokio_util::sync::CancellationToken;

use crate::cli::{OfStream, Tail, Words};
use crate::files::{given, read};
use crate::log::complain;
use crate::{client_settings, clients, configured, start_log};

/// The clients of a stream and its name.
async fn open(of: &OfStream, words: &Words) -> Result<(client::Clients, Config), Exit> {
    let mut given = given(words).await;
    let is_file = Path::new(&of.of).is_file();
    let is_stream = !of.of.ends_with(".properties")
        && of.of.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let name = if is_file || !is_stream {
        read(Path::new(&of.of), words, &mut given)?.display().to_string()
    } else {
        // The keys that every file needs, and those of the environment.
        let stream = &of.of;
        given.bytes = format!(
            "streamName = {stream}\napplicationName = multilangd\nexecutableName = none\n\
             AWSCredentialsProvider = DefaultCredentialsProvider\n"
        )
        .into_bytes();
        format!("stream {stream}")
    };
    let mut resolved = resolve::resolve(&given);
    // The records are the output: only warnings are logged unless a filter is set.
    if resolved.settings.source(own::LOG) == Source::Default {
        resolved.settings.put(own::LOG.name(), Value::Text("warn".to_owned()), Source::Default);
    }
    start_log(&resolved)?;
    let config = configured(resolved, &name, words, "-")?;
    let settings = if of.local {
        let endpoint = format!("http://127.0.0.1:{}", of.kinesis_port);
        let region = config.kinesis.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        client::Settings::local(&endpoint, &endpoint, &region, config.failover)
    } else {
        client::Settings { cloudwatch: None, ..client_settings(&config) }
    };
    let config = one(config, of)?;
    // Local mode creates the stream by its name.
    let stream_arn = config.stream_arn.clone().filter(|_| !of.local);
    let clients = clients(&settings, Arc::new(Discard)).await.map_err(|error| {
        complain(&error);
        Exit::Config
    })?;
    Ok((clients, Config { stream_arn, ..config }))
}

/// The configuration of one stream of several.
fn one(config: Config, of: &OfStream) -> Result<Config, Exit> {
    let is_only = of.one.as_ref().is_none_or(|one| *one == config.stream);
    if config.streams.is_empty() && is_only {
        return Ok(config);
    }
    let wanted = of.one.as_deref();
    let named = config.streams.named.iter().find(|stream| wanted == Some(stream.name.as_str())).cloned();
    let of_prefix = || config.streams.by_prefix(wanted?);
    let Some(stream) = named.or_else(of_prefix) else {
        let names = if config.streams.is_empty() {
            config.stream.clone()
        } else {
            config.streams.words().collect::<Vec<_>>().join(", ")
        };
        complain(&format!("--stream must be one of the streams of the properties file: {names}"));
        return Err(Exit::Usage);
    };
    let account = stream.account.clone().filter(|_| !of.local);
    Ok(Config {
        stream: stream.name.clone(),
        streams: Selection { named: vec![Wanted { account, ..stream }], prefixes: Vec::new() },
        ..config
    })
}

/// The stream of the configuration, addressed as the daemon addresses it. A namesake is refused.
pub(super) async fn stream_of(clients: &client::Clients, config: &Config) -> Result<Arc<Stream>, Exit> {
    let several = config.streams.named.first();
    let stream = match several {
        Some(one) => streams::named(clients, config, &one.name, one.account.as_deref()),
        None => clients.stream(config.stream.clone()).with_arn(config.stream_arn.clone()),
    };
    // Without permission to compare, the stream of that name is used, as by the daemon.
    if (config.stream_arn.is_some() || several.is_some_and(|one| one.account.is_some()))
        && let Err(error @ shard::Error::Namesake { .. }) = stream.identity().await
    {
        complain(&error);
        return Err(Exit::Config);
    }
    Ok(Arc::new(stream))
}

/// Prints the records of a stream.
pub(crate) async fn tail(tail: &Tail, words: &Words, stop: CancellationToken) -> Exit {
    let from = match From::parse(&tail.from, clock::wall_millis()) {
        Ok(from) => from,
        Err(error) => {
            complain(&format!("--from {}: {error}", tail.from));
            return Exit::Usage;
        }
    };
    if matches!(from, From::Number(_)) && tail.shard.is_none() {
        complain(&"--from with a sequence number needs --shard: a sequence number belongs to one shard");
        return Exit::Usage;
    }
    let (clients, config) = match Box::pin(open(&tail.stream, words)).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let stream = match Box::pin(stream_of(&clients, &config)).await {
        Ok(stream) => stream,
        Err(exit) => return exit,
    };
    let ports = tail::Ports {
        shards: stream.clone(),
        records: stream,
        location: config.kinesis.location().to_owned(),
        clock: clock::ServiceClock::new(clock::wall_millis, clients.service),
    };
    let options = tail::Options {
        from,
        shard: tail.shard.as_deref().map(ShardId::from),
        limit: tail.limit,
        follow: !tail.no_follow,
        text: tail.text,
    };
    let write = |bytes: &[u8]| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    };
    match Box::pin(tail::run(ports, options, write, stop)).await {
        Ok(()) => Exit::Clean,
        Err(error) => {
            complain(&error);
            match error {
                tail::Error::Shards(shard::Error::Denied(_)) => Exit::Denied,
                tail::Error::Shards(_) => Exit::Unavailable,
                tail::Error::Missing(_) => Exit::Usage,
                tail::Error::Output(_) => Exit::NoInput,
            }
        }
    }
}

/// Puts the lines of an input as records.
#[cfg(feature = "local")]
pub(crate) async fn put(put: &crate::cli::Put, words: &Words, stop: CancellationToken) -> Exit {
    use multilangd::local::completion::{Puts, lock};
    use multilangd::local::feed::{Form, Unput, put_lines};

    let (clients, config) = match Box::pin(open(&put.stream, words)).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let stream = match Box::pin(stream_of(&clients, &config)).await {
        Ok(stream) => stream,
        Err(exit) => return exit,
    };
    let puts = std::sync::Mutex::new(Puts::default());
    let form = if put.json { Form::Json } else { Form::Plain };
    let input = put.input.clone().into();
    let done = tokio::select! {
        biased;
        done = put_lines(&stream, input, form, &puts) => Some(done),
        () = stop.cancelled() => None,
    };
    let records = lock(&puts).records();
    match done {
        Some(Ok(_)) => crate::print(format!("put {records} records into {}\n", config.stream).as_bytes()),
        Some(Err(error)) => {
            complain(&format!(
                "failed to put the lines of {} into {}: {error}; {records} records were put",
                put.input.display(),
                config.stream
            ));
            match error {
                Unput::Read(_) | Unput::TooLong(_) | Unput::Line(..) => Exit::NoInput,
                Unput::Refused { .. } => Exit::Unavailable,
            }
        }
        None => {
            complain(&format!("stopped by a signal; {records} records were put into {}", config.stream));
            Exit::Interrupted
        }
    }
}
