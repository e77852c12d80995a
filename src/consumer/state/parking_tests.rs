//! Tests of shards that an operator parks.

use proptest::prelude::*;

use super::tests::{Life, batch, finish, last_batch, position, request};
use super::*;
use crate::letters::Limits;

fn order(since: i64) -> Parking {
    Parking { is_pause: false, since, by: "ann".into() }
}

fn parked() -> Effects {
    vec![Effect::CloseFeed, Effect::ParkedByOperator(order(1))]
}

impl Life {
    fn park(&mut self) -> Effects {
        self.on(Event::Park(order(1)))
    }

    /// A shard whose idle child was ended by an order.
    fn parked(stored: &str) -> Self {
        let mut life = Self::idle(stored);
        assert_eq!(life.park(), [Effect::Send(Message::ShutdownRequested)]);
        assert_eq!(life.done(Action::ShutdownRequested), [Effect::Send(Message::LeaseLost)]);
        assert_eq!(life.done(Action::LeaseLost), [Effect::CloseStdin]);
        assert_eq!(life.exited(), parked());
        assert_eq!(life.state.deadline(), None, "it waits for the operator");
        life
    }
}

#[test]
fn parked_child_can_checkpoint_and_ends_as_in_a_stop() {
    let mut life = Life::idle("5");
    life.process(&[6, 7], false);
    assert_eq!(life.park(), [Effect::Send(Message::ShutdownRequested)]);
    assert!(!life.state.wants_batch());
    assert_eq!(life.child(request(None)), [Effect::Store(position("7"))]);
    assert_eq!(life.stored("7"), [Effect::Acknowledge(Ok(()))]);
    life.done(Action::ShutdownRequested);
    life.done(Action::LeaseLost);
    assert_eq!(life.exited(), parked());
    let begun = [Effect::UnparkedByOperator, Effect::OpenFeed(position("7").sequence), Effect::Spawn];
    assert_eq!(life.on(Event::Unpark), begun);
}

#[test]
fn lease_acquired_while_parked_starts_no_child() {
    let mut life = Life::new("5");
    assert_eq!(life.park(), parked());
    assert_eq!(life.on(Event::Begin), []);
    assert!(!life.state.wants_batch());
    assert_eq!(life.on(Event::Park(order(2))), [Effect::ParkedByOperator(order(2))]);
    assert_eq!(life.on(Event::Park(order(2))), []);
    let begun = [Effect::UnparkedByOperator, Effect::OpenFeed(position("5").sequence), Effect::Spawn];
    assert_eq!(life.on(Event::Unpark), begun);
    let mut ended = Life::new("SHARD_END");
    ended.park();
    assert_eq!(ended.on(Event::Begin), finish(Outcome::ShardEnded));
}

#[test]
fn open_batch_is_finished_within_the_grace() {
    let mut life = Life::idle("5");
    life.on(Event::Batch(batch(&[6])));
    assert_eq!(life.park(), []);
    assert_eq!(life.done(Action::ProcessRecords), [Effect::Send(Message::ShutdownRequested)]);
    let mut slow = Life::idle("5");
    slow.on(Event::Batch(batch(&[6])));
    slow.park();
    let began = slow.now;
    assert_eq!(slow.wait(), [Effect::StopTimedOut, Effect::CloseStdin]);
    assert_eq!(slow.now - began, slow.state.settings.shutdown_grace);
    assert_eq!(slow.exited(), parked());
}

#[test]
fn order_that_ends_early_restarts_the_child_at_once() {
    let mut life = Life::idle("5");
    life.park();
    assert_eq!(life.on(Event::Unpark), []);
    life.done(Action::ShutdownRequested);
    life.done(Action::LeaseLost);
    assert_eq!(life.exited(), [Effect::Spawn], "nothing was delivered, so the feed continues");
    life.on(Event::Spawned);
    life.done(Action::Initialize);
    assert!(life.state.wants_batch());
}

#[test]
fn stop_handoff_and_lost_lease_end_a_parked_shard() {
    for (event, outcome) in [
        (Event::Stop, Outcome::Stopped),
        (Event::Wanted, Outcome::Stopped),
        (Event::LeaseLost, Outcome::LeaseLost),
    ] {
        let mut life = Life::parked("5");
        let effects = life.on(event);
        assert!(effects.ends_with(&finish(outcome)), "{effects:?}");
    }
    let mut life = Life::idle("5");
    life.park();
    assert_eq!(life.on(Event::Wanted), [], "the child is told already");
    life.done(Action::ShutdownRequested);
    life.done(Action::LeaseLost);
    assert_eq!(life.exited(), finish(Outcome::Stopped));
}

#[test]
fn failing_shard_is_parked_at_once_and_begins_anew() {
    let mut life = Life::idle("5");
    life.exited();
    assert!(matches!(life.state.phase, Phase::BackingOff(_)));
    assert_eq!(life.park(), parked());
    assert_eq!(life.state.failures, 0);
    life.on(Event::Unpark);
    life.on(Event::Spawned);
    life.park();
    assert!(matches!(life.exited()[..], [Effect::FailedWhileStopping(_), _, Effect::ParkedByOperator(_)]));
}

#[test]
fn shard_that_waits_for_parents_checks_them_again() {
    let mut life = Life::new("TRIM_HORIZON");
    life.state.has_parents = true;
    life.on(Event::Begin);
    assert_eq!(life.park(), parked());
    assert_eq!(life.on(Event::Parents(Ok(true))), [], "answered while it is parked");
    assert_eq!(life.on(Event::Unpark), [Effect::UnparkedByOperator, Effect::CheckParents]);
}

#[test]
fn end_of_a_shard_is_completed_within_the_grace() {
    let mut life = Life::idle("5");
    assert!(matches!(life.on(Event::Batch(last_batch(&[])))[..], [Effect::PrepareEnd(_)]));
    assert_eq!(life.park(), []);
    assert_eq!(life.on(Event::EndPrepared(Ok(()))), [Effect::Send(Message::ShardEnded)]);
    assert_eq!(life.child(request(None)), [Effect::Store(Position::shard_end())]);
    life.stored("SHARD_END");
    life.done(Action::ShardEnded);
    assert_eq!(life.exited(), finish(Outcome::ShardEnded));
}

#[test]
fn first_delivered_record_is_kept_without_a_checkpoint() {
    let mut life = Life::idle("LATEST");
    life.process(&[6, 7], false);
    life.park();
    life.done(Action::ShutdownRequested);
    life.done(Action::LeaseLost);
    life.exited();
    let effects = life.on(Event::Unpark);
    assert!(effects.contains(&Effect::OpenFeed(position("6").sequence)), "{effects:?}");
    let mut life = Life::parked("LATEST");
    let effects = life.on(Event::Unpark);
    assert!(effects.contains(&Effect::OpenFeed(Sequence::Latest)), "{effects:?}");
}

#[test]
fn letter_in_progress_is_finished_before_the_shard_is_parked() {
    let mut life = Life::idle("5");
    let record = batch(&[6]).records.decode().remove(0);
    let limits = Limits { record_failures: 1, in_a_row: 10 };
    life.state.settings.dead_letters = Some(limits);
    life.state.suspects = Some(Suspects::new(limits));
    life.on(Event::Batch(batch(&[6])));
    assert!(
        matches!(life.exited()[..], [Effect::Bisecting(..), Effect::Letter(_)]),
        "{:?}",
        life.state.phase
    );
    assert_eq!(life.park(), []);
    let effects = life.on(Event::Lettered(record.position(), Ok(())));
    assert_eq!(effects, [Effect::Bisected, Effect::Store(position("6"))]);
    assert_eq!(life.stored("6"), parked());
    assert!(life.on(Event::Unpark).contains(&Effect::OpenFeed(position("6").sequence)));
}

#[test]
fn letter_that_was_due_is_dropped_if_the_order_ends_early() {
    let mut life = Life::idle("5");
    let limits = Limits { record_failures: 1, in_a_row: 10 };
    life.state.settings.dead_letters = Some(limits);
    life.state.suspects = Some(Suspects::new(limits));
    life.on(Event::Batch(batch(&[6])));
    let failed = life.child(multilang::Event::OutputClosed);
    assert!(life.state.poison.is_some(), "{failed:?}");
    life.park();
    life.on(Event::Unpark);
    life.exited();
    life.on(Event::Spawned);
    life.exited();
    let phase = &life.state.phase;
    assert!(matches!(phase, Phase::BackingOff(_)), "no letter for a failure to start: {phase:?}");
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Park,
    Unpark,
    Answer,
    Checkpoint,
    Batch,
    Crash,
    CloseOutput,
    Deadline,
}

fn moves() -> impl Strategy<Value = Move> {
    use Move::{Answer, Batch, Checkpoint, CloseOutput, Crash, Deadline, Park, Unpark};
    prop::sample::select(vec![
        Park,
        Unpark,
        Answer,
        Answer,
        Answer,
        Checkpoint,
        Batch,
        Batch,
        Crash,
        CloseOutput,
        Deadline,
    ])
}

proptest! {
    /// Whatever happens, nothing is delivered while an order is known, each child that is started is ended, and the
    /// shard is parked by the order or works on. A letter is written only if the last child has failed at a record.
    #[test]
    fn nothing_is_delivered_while_an_order_is_known(
        moves in prop::collection::vec(moves(), 0..60), letters in any::<bool>(),
    ) {
        let mut life = Life::new("5");
        let limits = Limits { record_failures: 1, in_a_row: u32::MAX };
        life.state.settings.dead_letters = letters.then_some(limits);
        life.state.suspects = letters.then(|| Suspects::new(limits));
        let mut processed = false;
        let (mut ordered, mut open, mut runs, mut next) = (false, None, false, 6);
        let mut pending: VecDeque<Effect> = life.on(Event::Begin).into();
        let mut settle = |life: &mut Life, pending: &mut VecDeque<Effect>, open: &mut Option<Action>, runs: &mut bool, ordered: bool| {
            while let Some(effect) = pending.pop_front() {
                match effect {
                    Effect::Spawn => {
                        assert!(!*runs && !ordered, "started beside another child, or while parked");
                        *runs = true;
                        processed = false;
                        pending.extend(life.on(Event::Spawned));
                    }
                    Effect::Send(message) => {
                        assert!(*runs && open.is_none());
                        assert!(!ordered || !matches!(message, Message::ProcessRecords(..)), "delivered while parked");
                        *open = Some(message.action());
                        processed |= matches!(message, Message::ProcessRecords(..));
                    }
                    Effect::Store(position) => pending.extend(life.on(Event::Stored(position, Ok(())))),
                    Effect::Letter(record) => {
                        assert!(processed && !*runs, "a letter of a record that the last child did not receive");
                        pending.extend(life.on(Event::Lettered(record.position(), Ok(()))));
                    }
                    Effect::Abandon => *runs = false,
                    Effect::ParkedByOperator(_) => assert!(!*runs && ordered),
                    Effect::Finish(outcome) => panic!("{outcome:?}"),
                    _ => {}
                }
            }
        };
        settle(&mut life, &mut pending, &mut open, &mut runs, ordered);
        for step in moves {
            let effects = match step {
                Move::Park => {
                    ordered = true;
                    life.park()
                }
                Move::Unpark => {
                    ordered = false;
                    life.on(Event::Unpark)
                }
                Move::Answer => match open.take() {
                    Some(action) => life.done(action),
                    None if matches!(life.state.phase, Phase::Closing { .. }) && runs => {
                        runs = false;
                        life.exited()
                    }
                    None => Vec::new(),
                },
                Move::Checkpoint if open == Some(Action::ProcessRecords) => life.child(request(None)),
                Move::Batch if life.state.wants_batch() => {
                    next += 1;
                    life.on(Event::Batch(batch(&[next])))
                }
                Move::Crash if runs => {
                    (runs, open) = (false, None);
                    life.exited()
                }
                Move::CloseOutput if runs => life.child(multilang::Event::OutputClosed),
                Move::Deadline if life.state.deadline().is_some() => life.wait(),
                Move::Checkpoint | Move::Batch | Move::Crash | Move::CloseOutput | Move::Deadline => Vec::new(),
            };
            // A signal ends a child in the end.
            if matches!(life.state.phase, Phase::Closing { .. }) {
                open = None;
            }
            pending.extend(effects);
            settle(&mut life, &mut pending, &mut open, &mut runs, ordered);
            if matches!(life.state.phase, Phase::BackingOff(_)) {
                life.state.failures = 0;
            }
        }
        // Everything that was begun ends.
        for _ in 0..200 {
            if ordered == (life.state.phase == Phase::ParkedByOperator) && (ordered || life.state.wants_batch()) {
                return Ok(());
            }
            let effects = match open.take() {
                Some(action) => life.done(action),
                None if matches!(life.state.phase, Phase::Closing { .. }) && runs => {
                    runs = false;
                    life.exited()
                }
                None => life.wait(),
            };
            pending.extend(effects);
            settle(&mut life, &mut pending, &mut open, &mut runs, ordered);
        }
        prop_assert!(false, "{:?}, ordered: {ordered}", life.state.phase);
    }
}
