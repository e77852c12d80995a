//! A record processor without dependencies, for an image that contains nothing else. It checkpoints each batch.

use std::io::{BufRead as _, Write as _};

fn main() {
    let mut lines = std::io::stdin().lock().lines().map(Result::unwrap);
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next() {
        let action = line.split("\"action\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let has_records = line.contains("\"records\":[{");
        if action == "shardEnded" || action == "shutdownRequested" || has_records {
            writeln!(out, "{{\"action\":\"checkpoint\",\"sequenceNumber\":null,\"subSequenceNumber\":null}}").unwrap();
            out.flush().unwrap();
            lines.next();
        }
        writeln!(out, "{{\"action\":\"status\",\"responseFor\":\"{action}\"}}").unwrap();
        out.flush().unwrap();
    }
}
