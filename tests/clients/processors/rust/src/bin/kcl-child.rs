//! A record processor with the crate kcl. Checkpoints after each batch, at the end of the shard and in
//! shutdownRequested; the library panics before it calls the last two.
//!
//! argv: PORT

use kcl::checkpointer::Checkpointer;
use kcl::reader::StdinReader;
use kcl::writer::StdoutWriter;
use kcl::{Processor, Record};
use multilangd_test_children::{Test, record};
use serde_json::{Value, json};

struct Child(Test);

type Asks<'a, 'b> = &'a mut Checkpointer<'b, StdoutWriter, StdinReader>;

impl Child {
    fn checkpoint(&mut self, checkpointer: Asks) {
        match checkpointer.checkpoint(None, None) {
            Ok(_) => self.0.report("checkpointed", Value::Null),
            Err(error) => eprintln!("checkpoint failed: {error:?}"),
        }
    }
}

impl Processor<StdoutWriter, StdinReader> for Child {
    fn initialize(&mut self, shard: &str) {
        self.0.shard = shard.to_owned();
        self.0.report("initialize", Value::Null);
    }

    fn process_records(&mut self, records: &[Record], checkpointer: Asks) {
        let seen =
            |r: &Record| record(&r.raw_data, &r.partition_key, &r.sequence_number, r.sub_sequence_number);
        let records: Vec<Value> = records.iter().map(seen).collect();
        self.0.report("processRecords", json!({"records": records}));
        println!("a user's print on stdout");
        self.checkpoint(checkpointer);
    }

    fn lease_lost(&mut self) {
        self.0.report("leaseLost", Value::Null);
    }

    fn shard_ended(&mut self, checkpointer: Asks) {
        self.checkpoint(checkpointer);
        self.0.report("shardEnded", Value::Null);
    }

    fn shutdown_requested(&mut self, checkpointer: Asks) {
        self.checkpoint(checkpointer);
        self.0.report("shutdownRequested", Value::Null);
    }
}

fn main() {
    kcl::run(&mut Child(Test::connect()));
}
