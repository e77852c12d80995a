//! `multilangd test`: plays lives of a shard against a record processor and judges its answers.
//!
//! A [`Case`] is data: the position at which a child starts, the batches that it gets, a checkpoint that
//! fails, and the end of its life. [`life::play`] runs a case with a real child process and records a
//! [`Life`](life::Life). [`judge::judge`] is a pure function from the record to [`Finding`](finding::Finding)s. A
//! finding is a failure if the daemon would restart or stop the child, or if the Java daemon would, and a note if both
//! tolerate it.
//!
//! | module | holds |
//! |---|---|
//! | [`case`] | the cases |
//! | [`samples`] | the records of a case |
//! | [`life`] | one child through one case, by the rules of the daemon |
//! | [`judge`] | findings of a life |
//! | [`finding`] | the table of findings: code, severity, remedy |
//! | [`report`] | the report as text and as JUnit XML |
//!
//! In KCL: nothing. The rules are those of `MultiLangProtocol` and `MultiLangShardRecordProcessor`.

use crate::multilang::Launch;

pub mod case;
pub mod finding;
pub mod judge;
pub mod life;
pub mod report;
pub mod samples;

use case::Case;
pub use life::Settings;
use report::Outcome;

/// Runs cases one after the other; `done` receives each outcome as soon as it is known.
pub async fn run(program: &dyn Launch, cases: &[&Case], settings: &Settings, mut done: impl FnMut(Outcome)) {
    for case in cases {
        let life = life::play(program, case, settings).await;
        done(Outcome { case: case.name, findings: judge::judge(case, &life), took: life.took });
    }
}

/// The cases to run: those that `names` lists, or all; those with records of the user only if there are some.
///
/// # Errors
/// A name that no case has.
pub fn choose<'a>(names: &'a [String], has_records: bool) -> Result<Vec<&'static Case>, Unknown<'a>> {
    if let Some(name) = names.iter().find(|name| case::CASES.iter().all(|case| case.name != **name)) {
        return Err(Unknown(name));
    }
    let chosen = |case: &&Case| {
        if names.is_empty() {
            has_records || !case.is_own()
        } else {
            names.iter().any(|name| *name == case.name)
        }
    };
    Ok(case::CASES.iter().filter(chosen).collect())
}

/// A name that no case has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown case {0} (multilangd test --list prints all cases)")]
pub struct Unknown<'a>(&'a str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_and_own_records_only_if_given() {
        let names = |given: &[&str], has_records| {
            let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
            choose(&given, has_records).map(|cases| cases.len()).map_err(|unknown| unknown.to_string())
        };
        assert_eq!(names(&[], true), Ok(case::CASES.len()));
        assert_eq!(names(&[], false), Ok(case::CASES.len() - 1));
        assert_eq!(names(&["lease-lost", "shard-ended"], false), Ok(2));
        assert!(names(&["lease-last"], false).unwrap_err().contains("lease-last"));
    }
}
