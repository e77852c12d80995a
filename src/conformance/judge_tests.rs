//! A life without fault has no findings; each fault has its own.

use std::time::Duration;

use multilangd_protocol::CheckpointRequest;

use super::*;
use crate::conformance::case::CASES;
use crate::conformance::finding::Severity;
use crate::multilang::output::Strays;
use crate::sequence::{Position, Sequence};

fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap()
}

fn sent(action: Action) -> Step {
    Step::Sent(action, Content::Bare)
}

fn answered(action: Action) -> [Step; 2] {
    [sent(action), Step::Answered(action, action == Action::ShardEnded)]
}

fn exit(code: &str) -> Step {
    Step::Exited(code.to_owned())
}

fn ends() -> [Step; 2] {
    [Step::StdinClosed, exit(EXIT_0)]
}

/// Steps after an answered `initialize`.
fn life(steps: &[Step]) -> Life {
    let begin = [
        Step::Sent(Action::Initialize, Content::At(Position::new(Sequence::TrimHorizon))),
        Step::Answered(Action::Initialize, false),
    ];
    Life { steps: [&begin, steps].concat(), took: Duration::ZERO, ..Life::default() }
}

fn kinds(name: &str, life: &Life) -> Vec<Kind> {
    judge(case(name), life).iter().map(|finding| finding.kind).collect()
}

fn checkpoint(during: Action, answer: Result<(), CheckpointFailure>, injected: bool) -> Step {
    let request = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
    Step::Checkpoint(Checkpoint { during, request, early: false, behind: false, answer, injected })
}

#[test]
fn life_without_fault_has_no_findings() {
    let mut steps = answered(Action::ProcessRecords).to_vec();
    steps.extend(answered(Action::ShutdownRequested));
    steps.extend(answered(Action::LeaseLost));
    assert_eq!(kinds("shutdown-requested", &life(&[&steps[..], &ends()].concat())), []);
    assert_eq!(kinds("shutdown-requested", &life(&[&steps[..], &[exit("exit code 1")]].concat())), []);
    let end = [sent(Action::ShardEnded), Step::Answered(Action::ShardEnded, true)];
    assert_eq!(kinds("shard-ended", &life(&[&end[..], &ends()].concat())), []);
}

#[test]
fn answer_is_missing_wrong_or_extra() {
    let batch = sent(Action::ProcessRecords);
    let steps = [batch.clone(), Step::NotAnswered(Action::ProcessRecords), Step::Killed, exit("signal 9")];
    assert_eq!(kinds("records-none", &life(&steps)), [Kind::NoAnswer]);
    let wrong = |action| [sent(action), Step::AnsweredWrongly(action, None), exit(EXIT_0)];
    assert_eq!(kinds("records-none", &life(&wrong(Action::ProcessRecords)[..2])), [Kind::WrongAnswer]);
    let stop = [&wrong(Action::ShutdownRequested)[..2], &answered(Action::LeaseLost), &ends()].concat();
    assert_eq!(kinds("shutdown-requested", &life(&stop)), [Kind::WrongShutdownAnswer]);
    let extra = [&answered(Action::ProcessRecords)[..], &ends(), &[Step::ExtraStatus(None)]].concat();
    assert_eq!(kinds("end-of-input", &life(&extra)), [Kind::ExtraStatus]);
}

#[test]
fn exit_is_a_failure_only_while_the_shard_is_read() {
    for (steps, kind) in [
        (vec![sent(Action::ProcessRecords), exit(EXIT_0)], Some(Kind::Exited)),
        ([&answered(Action::ProcessRecords)[..], &[exit(EXIT_0)]].concat(), Some(Kind::Exited)),
        (vec![sent(Action::ShardEnded), exit("exit code 1")], Some(Kind::Exited)),
        (vec![sent(Action::ShutdownRequested), exit(EXIT_0)], Some(Kind::ExitedWhileStopping)),
        (
            [&answered(Action::ShutdownRequested)[..], &[exit(EXIT_0)]].concat(),
            Some(Kind::ExitedWhileStopping),
        ),
        (vec![sent(Action::LeaseLost), exit("exit code 1")], Some(Kind::Exited)),
        (
            [&answered(Action::ShutdownRequested)[..], &[sent(Action::LeaseLost), exit("exit code 1")]]
                .concat(),
            Some(Kind::ExitedWhileStopping),
        ),
        ([&answered(Action::LeaseLost)[..], &[exit("exit code 1")]].concat(), None),
        (vec![Step::StdinClosed, exit("exit code 1")], Some(Kind::ExitCode)),
        (vec![Step::StdinClosed, Step::NotExited, Step::Killed, exit("signal 9")], Some(Kind::NoExit)),
    ] {
        assert_eq!(kinds("end-of-input", &life(&steps)), kind.into_iter().collect::<Vec<_>>(), "{steps:?}");
    }
}

#[test]
fn shard_end_needs_a_checkpoint_which_is_retried() {
    let end = [sent(Action::ShardEnded), Step::Answered(Action::ShardEnded, false)];
    let findings = judge(case("shard-ended"), &life(&[&end[..], &ends()].concat()));
    assert_eq!(findings[0].kind, Kind::NoCheckpointAtShardEnd);
    assert_eq!((findings[0].sent.as_str(), findings[0].severity()), ("shardEnded", Severity::Failure));
    let fault = checkpoint(Action::ShardEnded, Err(CheckpointFailure::Throttling), true);
    let steps = [&end[..1], &[fault], &end[1..], &ends()].concat();
    assert_eq!(kinds("checkpoint-shard-end-throttled", &life(&steps)), [Kind::NoRetryAtShardEnd]);
}

#[test]
fn failed_checkpoint_must_be_survived() {
    let dies = |failure| {
        let fault = checkpoint(Action::ProcessRecords, Err(failure), true);
        life(&[sent(Action::ProcessRecords), fault, exit("exit code 1")])
    };
    assert_eq!(kinds("checkpoint-throttled", &dies(CheckpointFailure::Throttling)), [Kind::Exited]);
    assert_eq!(kinds("checkpoint-lease-lost", &dies(CheckpointFailure::Shutdown)), [Kind::Exited]);
    let idle = life(&[&answered(Action::ProcessRecords)[..], &ends()].concat());
    assert_eq!(kinds("checkpoint-throttled", &idle), [Kind::NothingTested]);
}

#[test]
fn checkpoints_are_refused_misplaced_or_late() {
    let with = |step: Step, during| {
        kinds(
            "end-of-input",
            &life(&[&[sent(during), step, Step::Answered(during, false)][..], &ends()].concat()),
        )
    };
    let batch = Action::ProcessRecords;
    assert_eq!(with(checkpoint(batch, Ok(()), false), batch), []);
    let refused = checkpoint(batch, Err(CheckpointFailure::IllegalArgument), false);
    assert_eq!(with(refused.clone(), batch), [Kind::RefusedCheckpoint]);
    let Step::Checkpoint(mut outdated) = refused else { panic!() };
    outdated.behind = true;
    assert_eq!(with(Step::Checkpoint(outdated), batch), [Kind::OutdatedCheckpoint]);
    let lost = Action::LeaseLost;
    let misplaced = checkpoint(lost, Err(CheckpointFailure::InvalidState), false);
    assert_eq!(with(misplaced, lost), [Kind::MisplacedCheckpoint]);
    assert_eq!(with(Step::UnansweredCheckpoint, batch), [Kind::LateCheckpoint]);
    assert_eq!(with(Step::Foreign("initialize"), batch), [Kind::ForeignMessage]);
    assert_eq!(with(Step::TooManyCheckpoints(batch), batch), [Kind::TooManyCheckpoints]);
}

#[test]
fn lines_that_are_no_messages_are_notes() {
    let noisy = |noise: &[Noise]| {
        let first: Vec<(String, Noise)> = noise.iter().map(|noise| ("x".to_owned(), *noise)).collect();
        let strays = Strays { lines: 7, first };
        judge(case("end-of-input"), &Life { strays, ..life(&ends()) })
    };
    let both = noisy(&[Noise::NotAnObject, Noise::UnknownField]);
    let seen: Vec<(Kind, Severity)> = both.iter().map(|finding| (finding.kind, finding.severity())).collect();
    assert_eq!(seen, [(Kind::UnreadableMessage, Severity::Note), (Kind::OutputOnStdout, Severity::Note)]);
    assert!(noisy(&[Noise::UnknownAction])[0].came.contains("7 lines"));
    let strays = Strays { lines: 1, first: vec![("null".to_owned(), Noise::NotAnObject)] };
    let null = judge(case("end-of-input"), &Life { strays, ..life(&ends()) });
    assert_eq!(null[0].kind, Kind::NullLine);
}

#[test]
fn program_that_cannot_start_or_closes_a_pipe_fails() {
    for (step, kind) in [
        (Step::NotStarted("no".to_owned()), Kind::NotStarted),
        (Step::InputBroken("broken pipe".to_owned()), Kind::InputClosed),
        (Step::OutputClosed, Kind::OutputClosed),
    ] {
        assert_eq!(kinds("end-of-input", &life(&[step, Step::Killed, exit("signal 9")])), [kind]);
    }
}
