//! Records that are too old: each is in a letter or skipped as the settings say, and no other is lost.

use proptest::prelude::*;

use super::*;
use crate::record::Data;

/// The destination has accepted the letters of these records.
fn written(shard: &mut Shard, numbers: std::ops::RangeInclusive<usize>) -> Vec<Effect> {
    let first = shard.record(*numbers.start()).position();
    let outcome = Ok(numbers.map(|number| shard.record(number).position()).collect());
    shard.state.on(shard.now, Event::AgedLettered { first, outcome })
}

#[test]
fn old_records_become_letters_and_others_are_processed() {
    let mut shard = Shard::new(20, []);
    (shard.batch, shard.checkpoints) = (10, 1);
    shard.limit_age([3, 4, 9, 20], true);
    shard.run(1_000);
    shard.assert_all_settled();
    assert_eq!((&shard.letters[..], shard.stored), (&[3, 4, 9, 20][..], 20));
    assert!(!shard.processed.contains(&3) && shard.failures == 0);
}

#[test]
fn batch_of_old_records_advances_the_checkpoint() {
    for writes_letters in [true, false] {
        let mut shard = Shard::new(10, []);
        shard.batch = 5;
        shard.limit_age(1..=10, writes_letters);
        shard.run(1_000);
        shard.assert_all_settled();
        assert_eq!(
            (shard.stored, shard.batches, shard.letters.len()),
            (10, 0, 10 * usize::from(writes_letters))
        );
    }
    // The child has not checkpointed what precedes them: its next checkpoint passes them.
    let mut shard = Shard::new(10, []);
    shard.limit_age(5..=10, false);
    shard.run(1_000);
    shard.assert_all_settled();
    assert_eq!((shard.stored, shard.state.progress.passed()), (0, 1));
}

#[test]
fn old_records_at_the_end_of_a_shard_are_passed_before_it_ends() {
    let mut shard = Shard::new(3, []);
    (shard.refuses, shard.batch) = (1_000, 3);
    shard.limit_age(1..=3, true);
    shard.handle(Event::Begin);
    let records = (1..=3).map(|number| shard.record(number)).collect();
    shard.handle(Event::Batch(Batch { records, end: Some(Vec::new()), ..Batch::default() }));
    assert!(matches!(shard.state.phase, Phase::Aged(_)), "{:?}", shard.state.phase);
    let effects = shard.state.on(shard.now, Event::Stop);
    assert_eq!(effects, [Effect::Send(Message::ShutdownRequested)], "the end is not reached");
    assert_eq!(written(&mut shard, 1..=1), []);

    let mut shard = Shard::new(3, []);
    shard.limit_age(1..=3, true);
    shard.handle(Event::Begin);
    let records = (1..=3).map(|number| shard.record(number)).collect();
    shard.handle(Event::Batch(Batch { records, end: Some(Vec::new()), ..Batch::default() }));
    assert!(shard.state.wants_rest());
    assert_eq!(shard.state.on(shard.now, Event::Rest), [Effect::PrepareEnd(Vec::new())]);
    assert_eq!((&shard.letters[..], shard.stored), (&[1, 2, 3][..], 3));
}

#[test]
fn records_without_arrival_or_out_of_order_are_delivered() {
    let mut shard = Shard::new(2, []);
    shard.limit_age(1..=2, false);
    let old = shard.record(1);
    let by_age = |records: Vec<Record>| shard.state.by_age(records.into()).old.len();
    assert_eq!(by_age(vec![old.clone(), shard.record(2)]), 2);
    assert_eq!(by_age(vec![Record { arrival: None, ..old.clone() }]), 0);
    assert_eq!(by_age(vec![shard.record(2), old]), 0);
}

#[test]
fn child_that_exits_while_a_letter_is_written_gets_no_second_one() {
    let mut shard = Shard::new(2, []);
    (shard.refuses, shard.batch) = (1_000, 2);
    shard.limit_age([1], true);
    shard.handle(Event::Begin);
    let records = (1..=2).map(|number| shard.record(number)).collect();
    shard.handle(Event::Batch(Batch { records, ..Batch::default() }));
    let effects = shard.state.on(shard.now, Event::Child(multilang::Event::Exited("exit code 1".to_owned())));
    assert!(matches!(effects[..], [Effect::Failed(_, 1)]), "{effects:?}");
    assert!(shard.state.rest.is_none() && shard.state.aged.is_empty());
    assert_eq!(written(&mut shard, 1..=1), []);
    assert_eq!(shard.state.progress.passed(), 0, "the record is read again");
    (shard.refuses, shard.checkpoints) = (0, 1);
    shard.run(1_000);
    shard.assert_all_settled();
    assert_eq!((&shard.letters[..], shard.stored), (&[1][..], 2));
}

/// Old records whose letters wait for their destination.
fn waiting(count: usize) -> Shard {
    let mut shard = Shard::new(count, []);
    shard.limit_age(1..=count, true);
    shard.refuses = 1_000;
    shard.handle(Event::Begin);
    let records = (1..=count).map(|number| shard.record(number)).collect();
    shard.handle(Event::Batch(Batch { records, ..Batch::default() }));
    assert!(matches!(shard.state.phase, Phase::Aged(AgedStep::Refused(_))), "{:?}", shard.state.phase);
    shard.now += Duration::from_secs(60);
    shard
}

#[test]
fn letters_of_a_batch_are_written_at_most_500_at_once() {
    let mut shard = Shard::new(1_201, []);
    shard.limit_age(1..=1_201, true);
    shard.run(10);
    shard.assert_all_settled();
    assert_eq!((shard.stored, shard.largest_write, shard.letters.len()), (1_201, 500, 1_201));

    let mut shard = waiting(3);
    let data = Data::encode(&vec![0; 2 << 20]);
    shard.state.aged.iter_mut().for_each(|record| record.data = data.clone());
    let effects = shard.state.on(shard.now, Event::Deadline);
    assert!(matches!(&effects[..], [Effect::AgedLetters(records)] if records.len() == 1), "too many bytes");
}

#[test]
fn only_records_with_accepted_letters_are_passed() {
    let mut shard = waiting(5);
    let numbers = |effects: &[Effect]| match effects {
        [.., Effect::AgedLetters(records)] => {
            records.iter().map(|record| number(&record.position())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let effects = shard.state.on(shard.now, Event::Deadline);
    assert_eq!(numbers(&effects), [1, 2, 3, 4, 5]);
    assert_eq!(written(&mut shard, 2..=3), [], "letters of other records");
    let effects = written(&mut shard, 1..=2);
    assert_eq!(numbers(&effects), [3, 4, 5]);
    let (first, last) = (shard.record(1).position(), shard.record(2).position());
    assert_eq!(effects[0], Effect::Aged { records: 2, first, last });
    assert_eq!(number(&shard.state.progress.beyond_passed(shard.state.progress.last())), 2);
}

/// A child failed while letters were written, and the records were read again: fewer of them are old by another clock.
#[test]
fn late_answer_passes_no_record_that_is_delivered() {
    let mut shard = waiting(3);
    shard.state.on(shard.now, Event::Deadline);
    shard.state.aged.truncate(1);
    shard.state.aged.push_back(Record::plain(3, "k", b""));
    let effects = written(&mut shard, 1..=3);
    let (first, last) = (shard.record(1).position(), shard.record(1).position());
    assert_eq!(effects[0], Effect::Aged { records: 1, first, last });
    assert!(matches!(&effects[1], Effect::AgedLetters(records) if number(&records[0].position()) == 3));
}

proptest! {
    #[test]
    fn old_records_are_passed_and_no_other_is_lost(
        seed in any::<u64>(), count in 1usize..60, bad in proptest::collection::btree_set(1usize..60, 0..4),
        old in proptest::collection::btree_set(1usize..60, 0..40), batch in 1usize..20,
        checkpoints in 0usize..4, most in proptest::option::of(1usize..9), window in any::<bool>(),
        flaky in 0u32..200, refuses in 0u32..600, writes_letters in any::<bool>(),
    ) {
        let mut shard = Shard::new(count, bad.iter().copied().filter(|bad| *bad <= count));
        (shard.batch, shard.checkpoints, shard.flaky, shard.refuses) = (batch, checkpoints, flaky, refuses);
        shard.random = fastrand::Rng::with_seed(seed);
        let window = window.then_some(Duration::from_secs(1));
        shard.state.settings.shape = crate::consumer::event::Shape { most, window };
        shard.limit_age(old, writes_letters);
        shard.run(1_000);
        shard.flaky = 0;
        shard.run(20_000);
        shard.assert_all_settled();
        prop_assert!(shard.processed.is_disjoint(&shard.old));
        prop_assert!(shard.skipped.is_subset(&shard.old));
    }
}
