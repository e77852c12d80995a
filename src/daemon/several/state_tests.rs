//! Each event of the streams of a table, with its effects.

use super::*;
use crate::stream::Prefix;

const NOTHING: [&str; 0] = [];
const SECOND: Duration = Duration::from_secs(1);

fn id(text: &str) -> StreamIdentifier {
    StreamIdentifier::parse(&format!("111122223333:{text}:5")).unwrap()
}

fn unavailable() -> Error {
    shard::Error::Unavailable("later".to_owned()).into()
}

fn missing() -> Error {
    shard::Error::StreamMissing("m".to_owned()).into()
}

struct Rig {
    state: State,
    now: Instant,
}

impl Rig {
    fn new(named: &[&str], prefixes: &[&str]) -> Self {
        let prefix = |text: &&str| Prefix { text: (*text).to_owned(), initial: None };
        let selection = Selection {
            named: named.iter().map(|name| Wanted::named(name)).collect(),
            prefixes: prefixes.iter().map(prefix).collect(),
        };
        let rules = Rules { letters: vec![Wanted::named("letters")], delete_former: None };
        let state = State::new(selection, rules, fastrand::Rng::with_seed(7));
        Self { state, now: Instant::now() }
    }

    /// A worker that has begun with these streams.
    fn begun(named: &[&str], prefixes: &[&str]) -> Self {
        let mut rig = Self::new(named, prefixes);
        rig.on(Event::Begin);
        rig.on(Event::CreationAllowed);
        for (index, name) in named.iter().enumerate() {
            rig.identified(index, name);
            rig.on(Event::Created(index, Ok(())));
        }
        rig
    }

    /// The effects of an event, in short.
    fn on(&mut self, event: Event) -> Vec<String> {
        let short = |effect| match effect {
            Effect::List => "list".to_owned(),
            Effect::Identify(index, wanted, place) => format!("identify {index} {wanted} {place:?}"),
            Effect::Meet(stream, place) => format!("meet {} {place:?}", stream.name()),
            Effect::Create(index, _, stream, _) => format!("create {index} {}", stream.name()),
            Effect::Admit(stream) => format!("admit {}", stream.name()),
            Effect::Keep(stream) => format!("keep {}", stream.name()),
            Effect::Leave(stream, is_left) => format!("leave {} {is_left}", stream.name()),
            Effect::Delete(stream) => format!("delete {}", stream.name()),
            Effect::Failed(_) => "failed".to_owned(),
        };
        self.state.on(self.now, event).into_iter().map(short).collect()
    }

    fn identified(&mut self, index: usize, name: &str) -> Vec<String> {
        self.on(Event::Identified(Subject::Entry(index), Ok((id(name), None))))
    }

    fn met(&mut self, name: &str) -> Vec<String> {
        self.on(Event::Identified(Subject::Met(id(name)), Ok((id(name), None))))
    }

    fn scanned(&mut self, names: &[&str]) -> Vec<String> {
        self.scanned_as(names, false)
    }

    fn scanned_as(&mut self, names: &[&str], audits: bool) -> Vec<String> {
        let streams = Arc::new(names.iter().map(|name| id(name)).collect());
        self.on(Event::Scanned { streams, audits })
    }

    fn listed(&mut self, names: &[&str]) -> Vec<String> {
        self.on(Event::Listed(Ok(names.iter().map(|name| (*name).to_owned()).collect())))
    }

    fn retry(&mut self) -> Vec<String> {
        self.now = self.state.retry_due().unwrap();
        self.on(Event::RetryDue)
    }
}

#[test]
fn streams_are_identified_and_their_leases_created_in_two_steps() {
    let mut rig = Rig::new(&["a", "b"], &[]);
    assert_eq!(rig.on(Event::Begin), ["identify 0 a Listed", "identify 1 b Listed"]);
    assert_eq!(rig.state.identified(), Ready::None);
    assert_eq!(
        rig.identified(0, "a"),
        ["admit a"],
        "nothing is written before the worker has joined the fleet"
    );
    assert_eq!(rig.state.identified(), Ready::Some);
    assert_eq!(rig.on(Event::CreationAllowed), ["create 0 a"]);
    assert_eq!(rig.identified(1, "b"), ["admit b", "create 1 b"]);
    assert_eq!(rig.state.begun(), Ready::None);
    assert_eq!(rig.on(Event::Created(0, Ok(()))), ["keep a"]);
    assert_eq!(rig.state.begun(), Ready::Some);
    assert_eq!(rig.scanned(&["a"]), NOTHING, "neither met nor kept again");
    assert_eq!(rig.on(Event::Created(1, Ok(()))), ["keep b"]);
    assert_eq!((rig.state.retry_due(), rig.state.list_due()), (None, None));
}

#[test]
fn failed_attempts_are_repeated_after_longer_and_longer_pauses() {
    let mut rig = Rig::new(&["a", "b"], &[]);
    rig.on(Event::Begin);
    rig.on(Event::CreationAllowed);
    rig.identified(0, "a");
    rig.on(Event::Created(0, Ok(())));
    let fails = |rig: &mut Rig| rig.on(Event::Identified(Subject::Entry(1), Err(unavailable())));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert_eq!(fails(&mut rig), ["failed"]);
        pauses.push(rig.state.retry_due().unwrap() - rig.now);
        assert_eq!(rig.retry(), ["identify 1 b Listed"]);
        assert_eq!(rig.on(Event::RetryDue), NOTHING, "one attempt at a time");
    }
    assert!(pauses[0] <= 5 * SECOND && pauses[7] >= 30 * SECOND && pauses[7] <= 60 * SECOND, "{pauses:?}");
    rig.identified(1, "b");
    // Its leases could not be created: it is described again, as it may be another stream by then.
    assert_eq!(rig.on(Event::Created(1, Err(unavailable()))), ["failed"]);
    assert_eq!(rig.retry(), ["identify 1 b Listed"]);
    rig.identified(1, "b");
    assert_eq!(rig.on(Event::Created(1, Ok(()))), ["keep b"]);
    rig.state.entries[1].stage = Stage::Unidentified;
    fails(&mut rig);
    assert!(rig.state.retry_due().unwrap() - rig.now <= 5 * SECOND, "a first pause again");
}

#[test]
fn stream_that_was_missing_is_one_that_was_created_since() {
    let mut rig = Rig::begun(&["a", "b"], &[]);
    rig.state.entries[1].stage = Stage::Unidentified;
    assert_eq!(rig.on(Event::Identified(Subject::Entry(1), Err(missing()))), ["failed"]);
    assert_eq!(rig.retry(), ["identify 1 b Created"]);
    rig.identified(1, "b");
    // It stays so while its leases cannot be created.
    rig.on(Event::Created(1, Err(unavailable())));
    assert_eq!(rig.retry(), ["identify 1 b Created"]);
    rig.on(Event::Identified(Subject::Entry(1), Err(unavailable())));
    assert_eq!(rig.retry(), ["identify 1 b Created"]);
}

#[test]
fn streams_are_selected_by_their_names_as_they_are_listed() {
    let mut rig = Rig::new(&[], &["logs-"]);
    assert_eq!(rig.on(Event::Begin), ["list"]);
    assert_eq!(rig.on(Event::ListDue), NOTHING, "one at a time");
    assert_eq!(rig.on(Event::Listed(Err(unavailable()))), ["failed"]);
    assert_eq!(rig.state.list_due(), Some(rig.now + 5 * SECOND));
    assert_eq!(rig.on(Event::ListDue), ["list"]);
    assert_eq!(rig.listed(&["other", "logs-a"]), ["identify 0 logs-a Selected"]);
    assert_eq!(rig.state.list_due(), Some(rig.now + 60 * SECOND));
    rig.on(Event::CreationAllowed);
    rig.identified(0, "logs-a");
    rig.on(Event::Created(0, Ok(())));
    // One that was not listed before was created since.
    rig.on(Event::ListDue);
    assert_eq!(rig.listed(&["logs-a", "logs-b"]), ["identify 1 logs-b Created"]);
    rig.on(Event::Identified(Subject::Entry(1), Err(missing())));
    rig.on(Event::ListDue);
    assert_eq!(rig.listed(&["logs-a"]), NOTHING);
    assert_eq!(rig.retry(), NOTHING, "one that is gone is not tried again");
    rig.on(Event::ListDue);
    assert_eq!(rig.listed(&["logs-a", "logs-b"]), ["identify 1 logs-b Created"]);
}

#[test]
fn no_stream_is_ready_where_none_is_selected() {
    let mut rig = Rig::new(&[], &["logs-"]);
    rig.on(Event::Begin);
    rig.listed(&[]);
    assert_eq!((rig.state.identified(), rig.state.begun()), (Ready::Empty, Ready::Empty));
    let mut rig = Rig::new(&["a"], &["logs-"]);
    rig.on(Event::Begin);
    rig.listed(&[]);
    assert_eq!(rig.state.identified(), Ready::None);
}

#[test]
fn streams_that_have_leases_are_read_whether_they_are_configured_or_not() {
    let mut rig = Rig::begun(&["a"], &["logs-"]);
    let places = ["meet logs-a Selected", "meet x Unlisted"];
    assert_eq!(rig.scanned(&["a", "logs-a", "x"]), places);
    assert_eq!(rig.scanned(&["a", "logs-a", "x"]), NOTHING, "in progress");
    assert_eq!(rig.met("x"), ["admit x", "keep x"]);
    let failed = Event::Identified(Subject::Met(id("logs-a")), Err(unavailable()));
    assert_eq!(rig.on(failed), NOTHING, "no failure of the configuration");
    assert_eq!(rig.scanned(&["a", "logs-a", "x"]), NOTHING, "not yet");
    assert_eq!(rig.retry(), ["meet logs-a Selected"]);
    // A stream that was admitted is not opened again: its parts are in use.
    assert_eq!(rig.met("x"), NOTHING);
}

#[test]
fn stream_of_dead_letters_is_not_read() {
    let mut rig = Rig::begun(&["a"], &[]);
    assert_eq!(rig.scanned(&["letters"]), NOTHING);
}

#[test]
fn leases_of_former_streams_are_deleted_by_the_auditor_after_the_time() {
    let mut rig = Rig::begun(&["a"], &["logs-"]);
    rig.state.selection.named[0].epoch = Some(9);
    let all = ["a", "logs-a", "old"];
    rig.scanned_as(&all, true);
    rig.now += 3600 * SECOND;
    for other in all {
        rig.met(other);
    }
    assert_eq!(rig.scanned_as(&all, true), NOTHING, "they are kept by default");

    rig.state.rules.delete_former = Some(60 * SECOND);
    assert_eq!(rig.scanned_as(&all, true), NOTHING);
    rig.now += 29 * SECOND;
    assert_eq!(rig.scanned_as(&all, true), NOTHING, "its rows are restored and completed");
    assert_eq!(rig.state.retry_due(), Some(rig.now + SECOND));
    assert_eq!(rig.retry(), ["leave old true"], "on all workers");
    assert_eq!(rig.state.retry_due(), None);
    rig.now += 29 * SECOND;
    assert_eq!(rig.scanned_as(&all, true), NOTHING);
    rig.now += SECOND;
    assert_eq!(rig.scanned_as(&all, false), NOTHING, "another worker audits");
    assert_eq!(rig.scanned_as(&all, true), ["delete old"]);
    assert_eq!(rig.scanned_as(&all, true), NOTHING, "in progress");
    rig.on(Event::Deleted(id("old"), Err(unavailable())));
    assert_eq!(rig.scanned_as(&all, true), NOTHING);
    rig.now += 10 * SECOND;
    assert_eq!(rig.scanned_as(&all, true), ["delete old"], "it is not left half deleted");
    rig.on(Event::Deleted(id("old"), Ok(2)));
    // A worker with an older configuration has restored a row.
    assert_eq!(rig.scanned_as(&all, true), NOTHING);
    rig.now += 60 * SECOND;
    assert_eq!(rig.scanned_as(&all, true), ["delete old"]);
    rig.on(Event::Deleted(id("old"), Ok(1)));
    assert_eq!(rig.scanned_as(&["a", "logs-a"], true), ["leave old false"]);
    // It was listed again on other workers: the time begins anew.
    rig.now += 3600 * SECOND;
    assert_eq!(rig.scanned_as(&all, true), NOTHING);
}

#[test]
fn stream_that_cannot_be_met_does_not_hasten_configured_ones() {
    let mut rig = Rig::begun(&["a"], &[]);
    rig.scanned(&["a", "x"]);
    rig.on(Event::Identified(Subject::Met(id("x")), Err(unavailable())));
    let entry = Entry { wanted: Wanted::named("b"), stage: Stage::Unidentified, is_busy: true };
    rig.state.entries.push(entry);
    for _ in 0..5 {
        rig.on(Event::Identified(Subject::Entry(1), Err(unavailable())));
        for _ in 0..10 {
            match &rig.retry()[..] {
                [effect] if effect == "identify 1 b Selected" => break,
                other => assert_eq!(other, ["meet x Unlisted"]),
            }
            rig.on(Event::Identified(Subject::Met(id("x")), Err(unavailable())));
        }
    }
    rig.on(Event::Identified(Subject::Entry(1), Err(unavailable())));
    assert!(rig.state.entries_due.unwrap() - rig.now > 20 * SECOND);
    assert_eq!(rig.retry(), ["meet x Unlisted"]);
}

#[test]
fn stream_is_kept_once_it_has_leases() {
    let mut rig = Rig::new(&["a", "b"], &[]);
    rig.on(Event::Begin);
    rig.identified(0, "a");
    rig.identified(1, "b");
    rig.scanned(&["b"]);
    assert_eq!(rig.on(Event::CreationAllowed), ["create 0 a", "create 1 b", "keep b"]);
    assert_eq!(rig.scanned(&["a", "b"]), ["keep a"], "another worker has created them");
    // A stream that nothing uses is opened again.
    let mut rig = Rig::begun(&["a"], &[]);
    rig.scanned(&["x"]);
    rig.scanned(&[]);
    assert_eq!(rig.met("x"), ["admit x"]);
    assert_eq!(rig.met("x"), ["admit x"]);
}

#[test]
fn repeated_start_writes_nothing_before_the_worker_has_joined_again() {
    let mut rig = Rig::new(&["a"], &[]);
    rig.on(Event::Begin);
    rig.on(Event::CreationAllowed);
    rig.identified(0, "a");
    rig.on(Event::Created(0, Err(unavailable())));
    rig.on(Event::Begin);
    assert_eq!(rig.identified(0, "a"), ["admit a"]);
    assert_eq!(rig.on(Event::CreationAllowed), ["create 0 a"]);
}

#[test]
fn only_settings_that_concern_all_streams_are_a_wrong_configuration() {
    let foreign = Error::Stream(shard::Error::Namesake { configured: "a".to_owned(), found: "b".to_owned() });
    assert!(is_misconfigured(&foreign));
    assert!(!is_misconfigured(&unavailable()) && !is_misconfigured(&missing()));
}
