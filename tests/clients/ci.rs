//! `examples/ci`: the job of a user, with the record processor in Node.

use crate::ci_job::*;

#[tokio::test(flavor = "multi_thread")]
async fn node_example_passes() {
    assert_passes("node", "node examples/node/processor.js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_bugs_in_node_are_found() {
    let answer = "    send({ action: 'status', responseFor: message.action });\n";
    let bugs: &[Bug] = &[
        ("records-empty", "wrong-answer", "responseFor: message.action", "responseFor: 'initialize'"),
        (
            "records-empty",
            "output-on-stdout",
            answer,
            &format!("    console.log('done');\n{answer}").leak()[..],
        ),
        ("shard-ended", "no-checkpoint-at-shard-end", "      case 'shardEnded':\n", ""),
        (
            "records-unicode",
            "exited",
            "        for (const record of message.records) {\n",
            "        for (const record of message.records) {\n          if (/[^ -~]/.test(record.partitionKey)) throw record;\n",
        ),
        ("end-of-input", "no-exit", "\nmain().catch(", "\nsetInterval(() => {}, 1000);\nmain().catch("),
    ];
    assert_found("node-bugs", "examples/node/processor.js", "node", bugs).await;
}
