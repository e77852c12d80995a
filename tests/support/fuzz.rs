//! Runs a property on random inputs for a given time. `MULTILANGD_FUZZ_SECONDS` is the time for each fuzzer,
//! one second by default; `MULTILANGD_FUZZ_SEED` repeats the inputs of an earlier run. A failing input is
//! minimised and reported with its seed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::{any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::strategy::{Just, Strategy};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner};

/// Number of inputs between two checks of the time.
const ROUND: u32 = 256;

/// A whole number from an environment variable.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}

/// Runs the property until the time is over; panics with the seed and the smallest failing input.
pub(crate) fn run<S: Strategy>(inputs: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    #[expect(clippy::disallowed_methods, reason = "fuzzing takes real time")]
    let now = Instant::now;
    let end = now() + Duration::from_secs(variable("MULTILANGD_FUZZ_SECONDS").unwrap_or(1));
    let mut seed =
        variable("MULTILANGD_FUZZ_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let mut count = 0;
    loop {
        let config = Config { cases: ROUND, failure_persistence: None, ..Config::default() };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        match TestRunner::new_with_rng(config, rng).run(inputs, &property) {
            Ok(()) => {}
            Err(TestError::Fail(reason, input)) => panic!(
                "MULTILANGD_FUZZ_SEED={seed} fails (after {count} inputs): {reason}\nsmallest input: {input:?}"
            ),
            Err(TestError::Abort(reason)) => panic!("MULTILANGD_FUZZ_SEED={seed}: {reason}"),
        }
        count += u64::from(ROUND);
        if now() >= end {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    writeln!(std::io::stdout(), "{count} inputs, last seed {seed}").unwrap_or_default();
}

/// Replaces, removes or inserts some bytes, preferably by bytes that are significant to the format; often
/// changes nothing.
pub(crate) fn changed(
    text: impl Strategy<Value = Vec<u8>>,
    telling: &'static [u8],
) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => select(telling), 1 => any::<u8>()];
    let changes = proptest::collection::vec((any::<Index>(), 0..3, byte), 1..4);
    let changes = prop_oneof![3 => Just(Vec::new()), 2 => changes];
    (text, changes).prop_map(|(mut text, changes)| {
        for (at, what, byte) in changes {
            let at = at.index(text.len() + 1);
            match what {
                0 => text.insert(at, byte),
                1 if at < text.len() => text[at] = byte,
                2 if at < text.len() => drop(text.remove(at)),
                _ => {}
            }
        }
        text
    })
}
