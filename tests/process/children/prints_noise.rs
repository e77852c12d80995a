//! A child that prints lines to stdout that are not messages: banners, blank lines, incomplete lines, other
//! JSON, binary data, lines of 20 MB, the word `null` (which ends the Java daemon).

use base64::Engine as _;

use super::scene::Scene;

/// Lines that are not messages, each with the text that the log must contain.
const NOISE: [(&[u8], &str); 12] = [
    (b"*** starting up ***\n", "starting up"),
    (b"\n\n  \n", ""),
    (b"null\n", "null"),
    (b"[1,2]\n\"text\"\n17\ntrue\n", "[1,2]"),
    (b"{}\n", "{}"),
    (b"{\"action\":\"noSuchAction\"}\n", "noSuchAction"),
    (b"{\"action\":\"Status\",\"responseFor\":\"processRecords\"}\n", "Status"),
    (b"{\"action\":\"status\",\"responseFor\":\"processRecords\",\"extra\":1}\n", "extra"),
    (b"{\"action\":\"checkpoint\",\"checkpoint\":\"5\"}\n", "checkpoint"),
    (b"{\"action\":\"status\",\"responseFor\":\n", "responseFor"),
    (b"\xff\xfe\x00\x1b[31m\n", "[31m"),
    (b"{\"action\":\"initialize\",\"shardId\":\"x\",\"sequenceNumber\":\"1\"}\r\n", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn messages_between_noise_are_understood() {
    let noise: Vec<u8> = NOISE.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    let fault = format!("say:{}", base64::engine::general_purpose::STANDARD.encode(noise));
    let scene = Scene::new("noise", 2).await.plan(0, "processRecords", fault.clone());
    let run = scene.plan(0, "initialize", fault.clone()).plan(0, "idle", fault).play().await;
    run.assert_sound();
    assert_eq!((run.failures(), run.children(&super::scene::shard(0)).len()), (vec![], 1));
    let printed: String =
        run.lines.iter().filter(|line| line["target"] == "child").map(|line| format!("{line}\n")).collect();
    for (_, words) in NOISE {
        assert!(printed.contains(&words.replace('"', "\\\"")), "{words}: {printed}");
    }
    assert!(!printed.contains("\\u001b"), "nothing steers a terminal");
}

/// A line of more than twenty megabytes is skipped, in bounded memory.
#[tokio::test(flavor = "multi_thread")]
async fn line_of_twenty_megabytes_is_skipped() {
    let run = Scene::new("long-line", 2).await.plan(0, "processRecords", "long:22020096").play().await;
    run.assert_sound();
    assert_eq!(run.failures(), []);
    let text = run.text();
    assert!(text.contains("22020096") && text.len() < 100_000, "{}", text.len());
}

/// A status with an unknown field is not an answer: the test above would not pass if the child sent only that.
#[tokio::test(flavor = "multi_thread")]
async fn noise_does_not_count_as_an_answer() {
    let status = b"{\"action\":\"status\",\"responseFor\":\"processRecords\",\"extra\":1}\n";
    let fault = format!("say:{}", base64::engine::general_purpose::STANDARD.encode(status));
    let mut scene =
        Scene::new("no-answer", 2).await.plan(0, "idle", fault).plan(0, "processRecords", "answer-null");
    scene = scene.lines("timeoutInSeconds = 1\n");
    let run = scene.play().await;
    assert_eq!(run.failures().len(), 1, "{}", run.text());
}
