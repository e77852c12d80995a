//! A record processor with the crate kcl-async. Checkpoints after each batch, in shutdownRequested and in the
//! old shutdown(TERMINATE); the library's `shard_ended` receives no checkpointer.
//!
//! argv: PORT

use std::convert::Infallible;

use async_trait::async_trait;
use kcl_async::checkpoint::Checkpointer;
use kcl_async::message::input::{
    InitializeMessage, LeaseLostMessage, ProcessRecordsMessage, ShardEndedMessage, ShutdownMessage,
    ShutdownRequestedMessage,
};
use kcl_async::processor::Processor;
use kcl_async::transport::StdTransport;
use multilangd_test_children::{Test, record};
use serde_json::{Value, json};

struct Child(Test);

type Asks<'a, 'b> = &'a mut Checkpointer<'b, StdTransport>;
type Done = Result<(), Infallible>;

impl Child {
    async fn checkpoint(&mut self, checkpointer: Asks<'_, '_>) {
        match checkpointer.checkpoint(None, None).await {
            Ok(_) => self.0.report("checkpointed", Value::Null),
            Err(error) => eprintln!("checkpoint failed: {error:?}"),
        }
    }
}

#[async_trait]
impl Processor<StdTransport> for Child {
    type Error = Infallible;

    async fn initialize(&mut self, message: InitializeMessage) -> Done {
        self.0.shard = message.shard_id;
        self.0.report("initialize", Value::Null);
        Ok(())
    }

    async fn process_records(&mut self, message: ProcessRecordsMessage, checkpointer: Asks<'_, '_>) -> Done {
        let records: Vec<Value> = message
            .records
            .iter()
            .map(|r| {
                record(&r.to_bytes().unwrap(), &r.partition_key, &r.sequence_number, r.sub_sequence_number)
            })
            .collect();
        self.0.report("processRecords", json!({"records": records}));
        println!("a user's print on stdout");
        self.checkpoint(checkpointer).await;
        Ok(())
    }

    async fn shutdown(&mut self, message: ShutdownMessage, checkpointer: Asks<'_, '_>) -> Done {
        match message.reason.as_deref() {
            Some("TERMINATE") => {
                self.checkpoint(checkpointer).await;
                self.0.report("shardEnded", Value::Null);
            }
            reason => {
                assert_eq!(reason, Some("ZOMBIE"));
                self.0.report("leaseLost", Value::Null);
            }
        }
        Ok(())
    }

    async fn shutdown_requested(&mut self, _: ShutdownRequestedMessage, checkpointer: Asks<'_, '_>) -> Done {
        self.checkpoint(checkpointer).await;
        self.0.report("shutdownRequested", Value::Null);
        Ok(())
    }

    async fn lease_lost(&mut self, _: LeaseLostMessage) -> Done {
        self.0.report("leaseLost", Value::Null);
        Ok(())
    }

    async fn shard_ended(&mut self, _: ShardEndedMessage) -> Done {
        self.0.report("shardEndedWithoutCheckpoint", Value::Null);
        Ok(())
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(kcl_async::run(StdTransport::new(), Child(Test::connect()))).unwrap();
}
