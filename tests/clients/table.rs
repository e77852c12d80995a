//! Every client, a row each, and the scenario that each goes through.
//!
//! What a client can't do is its own limit, seen under the Java daemon too; the row says what happens then.

use crate::client::Runs::{Binary, Node, Python};
use crate::client::{Client, End, FULL};
use crate::scenario::sees_all_records;

/// For clients that know `shutdown` with a reason instead of `leaseLost` and `shardEnded`.
const OLD: &str = "multilangd.childProtocol = shutdown\n";

/// The client that the others are measured by, and that goes on where they can't.
pub const KCLPY: Client = kclpy("v3", &["amazon_kclpy-3.2.0"]);

pub const fn kclpy(interface: &'static str, packages: &'static [&'static str]) -> Client {
    let runs = Python { script: "kclpy.py", packages, interface };
    Client { runs, properties: "", end: End::Checkpointed, stop: FULL }
}

pub const fn aws_kcl(package: &'static str, interface: &'static str) -> Client {
    Client { runs: Node { package, interface }, properties: "", end: End::Checkpointed, stop: FULL }
}

pub const EASY_KCLPY: Client = Client {
    runs: Python {
        script: "per_record.py",
        packages: &["easy-kclpy-2021.7.2", "amazon_kclpy-3.2.0"],
        interface: "",
    },
    ..KCLPY
};

pub const OLD_KCLPY: Client = Client { properties: OLD, ..kclpy("v2", &["amazon_kclpy-1.5.1"]) };

pub const OLD_AWS_KCL: Client = Client { properties: OLD, ..aws_kcl("aws-kcl-0.7.0", "v1") };

macro_rules! clients {
    ($($name:ident: $client:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            sees_all_records(stringify!($name), &$client).await;
        }
    )*};
}

clients! {
    // PyPI
    kclpy_3_2_0_v3: KCLPY;
    kclpy_3_2_0_v2: kclpy("v2", &["amazon_kclpy-3.2.0"]);
    kclpy_3_2_0_v1: kclpy("v1", &["amazon_kclpy-3.2.0"]);
    kclpy_2_1_5: kclpy("v3", &["amazon_kclpy-2.1.5"]);
    easy_kclpy_2021_7_2: EASY_KCLPY;
    kclpy_1_5_1_v2: OLD_KCLPY;
    kclpy_1_5_1_v1: Client { properties: OLD, ..kclpy("v1", &["amazon_kclpy-1.5.1"]) };
    // It dies of an action that it doesn't know.
    kclpy_1_5_1_without_the_old_protocol: Client {
        properties: "",
        end: End::Never("exit code 1"),
        stop: &["shutdownRequested"],
        ..OLD_KCLPY
    };

    // npm
    aws_kcl_2_3_2_v2: aws_kcl("aws-kcl-2.3.2", "v2");
    aws_kcl_2_3_2_v1: aws_kcl("aws-kcl-2.3.2", "v1");
    aws_kcl_0_7_0: OLD_AWS_KCL;
    aws_kcl_0_7_0_without_the_old_protocol: Client {
        properties: "",
        end: End::Never("exit code 1"),
        stop: &["shutdownRequested"],
        ..OLD_AWS_KCL
    };

    // Go. It ends after shutdownRequested, and ignores leaseLost and shardEnded without an answer.
    clever_go_1_0_0: Client {
        runs: Binary("clever-go"),
        properties: "timeoutInSeconds = 2\n",
        end: End::Never("timeoutInSeconds"),
        stop: &["shutdownRequested"],
    };
    clever_go_1_0_0_with_the_old_protocol: Client {
        runs: Binary("clever-go"),
        properties: OLD,
        end: End::Checkpointed,
        stop: &["shutdownRequested"],
    };

    // crates.io. kcl panics at shutdownRequested and shardEnded: it wants a field that KCL 1.6 had.
    kcl_0_3_3: Client {
        runs: Binary("rust/debug/kcl-child"),
        properties: "",
        end: End::Never("exit code 101"),
        stop: &[],
    };
    // Its shard_ended is given nothing to checkpoint with, its shutdown is.
    kcl_async_0_1_0: Client {
        runs: Binary("rust/debug/kcl-async-child"),
        properties: "",
        end: End::Never("answered shardEnded without a checkpoint"),
        stop: FULL,
    };
    kcl_async_0_1_0_with_the_old_protocol: Client {
        runs: Binary("rust/debug/kcl-async-child"),
        properties: OLD,
        ..KCLPY
    };
}
