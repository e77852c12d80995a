//! The arguments of `tail` and `put`.

#[cfg(feature = "local")]
use std::path::PathBuf;

use clap::Args;

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct OfStream {
    /// A properties file, or the name of a stream.
    #[arg(value_name = "FILE|STREAM")]
    pub(crate) of: String,
    /// The stream, if the properties file names several (multilangd.streams).
    #[arg(long = "stream", value_name = "STREAM")]
    pub(crate) one: Option<String>,
    /// Use the stream of a multilangd local on this machine.
    #[arg(long)]
    pub(crate) local: bool,
    /// With --local: port of its Kinesis endpoint.
    #[arg(long, value_name = "PORT", default_value_t = 4567, requires = "local")]
    pub(crate) kinesis_port: u16,
}

/// `tail`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) stream: OfStream,
    /// Start at TRIM_HORIZON, LATEST, seconds since 1970, a time ago such as 15m, or with --shard a sequence number.
    #[arg(long, value_name = "POSITION", default_value = "LATEST")]
    pub(crate) from: String,
    /// Read only this shard, and not its child shards.
    #[arg(long, value_name = "ID")]
    pub(crate) shard: Option<String>,
    /// Exit after this many records.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
    /// Exit at the tip of the stream instead of waiting for new records.
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Print data that is valid UTF-8 as text instead of base64.
    #[arg(long)]
    pub(crate) text: bool,
}

/// `put`.
#[cfg(feature = "local")]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) stream: OfStream,
    /// The file whose lines are put, or - for stdin.
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) input: PathBuf,
    /// Each line is a JSON object with partitionKey, and data in base64 or text, as multilangd tail prints it.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parsed;

    #[test]
    fn tail_and_put_accept_a_file_or_a_stream() {
        let Ok((Command::Tail(tail), _)) = parsed(&["tail", "orders", "--from", "15m", "--limit", "3"])
        else {
            panic!()
        };
        assert_eq!((tail.stream.of.as_str(), tail.from.as_str(), tail.limit), ("orders", "15m", Some(3)));
        assert!(parsed(&["tail"]).is_err());
        assert!(parsed(&["tail", "orders", "--kinesis-port", "4567"]).is_err(), "without --local");
        #[cfg(feature = "local")]
        {
            let Ok((Command::Put(put), _)) = parsed(&["put", "orders", "--local"]) else { panic!() };
            assert_eq!((put.input, put.stream.kinesis_port), ("-".into(), 4567));
        }
    }
}
