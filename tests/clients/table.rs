//! One row per client, run through the common scenario.
//!
//! A limit in a row is the client's own, and exists with the Java daemon too; the row states the consequence.

use crate::client::Runs::{Binary, Node, Python};
use crate::client::{Client, End, FULL};
use crate::conformance::assert_known_results;
use crate::scenario::run_scenario;

/// For clients that expect `shutdown` with a reason instead of `leaseLost` and `shardEnded`.
const OLD: &str = "multilangd.childProtocol = shutdown\n";

/// The reference client, which also resumes where another client cannot continue.
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
    ($($name:ident: $client:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                run_scenario(stringify!($name), &$client).await;
            }
        )*

        mod kit {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    assert_known_results(stringify!($name), &$client).await;
                }
            )*
        }
    };
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
    // It exits at an action that it does not know.
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

    // Go. It exits after shutdownRequested, and does not answer leaseLost and shardEnded.
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

    // crates.io. kcl panics at shutdownRequested and shardEnded: it requires a field that only KCL 1.6 sends.
    kcl_0_3_3: Client {
        runs: Binary("rust/debug/kcl-child"),
        properties: "",
        end: End::Never("exit code 101"),
        stop: &[],
    };
    // Its shard_ended receives no checkpointer, its shutdown does.
    kcl_async_0_1_0: Client {
        runs: Binary("rust/debug/kcl-async-child"),
        properties: "",
        end: End::Never("shardEnded"),
        stop: FULL,
    };
    kcl_async_0_1_0_with_the_old_protocol: Client {
        runs: Binary("rust/debug/kcl-async-child"),
        properties: OLD,
        ..KCLPY
    };
}
