//! `examples/ci`: the job of a user, with the record processor in Python. `tests/clients` has the one in Node.

use crate::ci_job::*;

#[tokio::test(flavor = "multi_thread")]
async fn python_example_passes() {
    assert_passes("python", "python3 -u examples/python/processor.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_bugs_in_python_are_found() {
    let answer = "        send({\"action\": \"status\", \"responseFor\": action})\n";
    let bugs: &[Bug] = &[
        ("records-empty", "wrong-answer", "\"responseFor\": action}", "\"responseFor\": \"initialize\"}"),
        (
            "records-empty",
            "output-on-stdout",
            answer,
            &format!("        print(\"done\", flush=True)\n{answer}").leak()[..],
        ),
        (
            "shard-ended",
            "no-checkpoint-at-shard-end",
            "(\"shardEnded\", \"shutdownRequested\")",
            "(\"shutdownRequested\",)",
        ),
        ("records-unicode", "exited", "decode(\"utf-8\", \"replace\")", "decode(\"ascii\")"),
        ("end-of-input", "no-exit", "\n\nmain()\n", "\n\nmain()\nwhile True:\n    time.sleep(60)\n"),
    ];
    assert_found("python-bugs", "examples/python/processor.py", "python3 -u", bugs).await;
}
