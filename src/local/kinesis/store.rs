//! What is kept on disk between runs.
use std::io;
use std::sync::Arc;

use super::shard::Record;

/// The log file of one shard.
#[derive(Debug)]
pub(super) struct ShardFile;

impl ShardFile {
    pub(super) fn append(&mut self, _records: &[Arc<Record>]) -> io::Result<()> {
        Ok(())
    }
}
