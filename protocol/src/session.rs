//! The conversation with one child, without I/O: who may speak, what is owed.
//!
//! ```text
//! idle --begin--> open --status of that name--> idle
//!                 open --checkpoint--> owing --acknowledge--> open
//! ```
//!
//! Lines are taken in at any time ([`Session::receive`]), so that a child that prints or dies while
//! idle is noticed at once, but a message is *interpreted* only while an action is open
//! ([`Session::next`]), in the order in which it came: a checkpoint that a client sends after its
//! `status` is carried out within the next action, as Java does. One thing differs from Java on
//! purpose: a `status` that was there before its action began is told and dropped. In Java it would
//! answer the next action too early, and every later one after it.
//!
//! In KCL: `MultiLangProtocol.waitForStatusMessage`.

use std::collections::VecDeque;

use crate::failure::CheckpointFailure;
use crate::line::Line;
use crate::message::{Action, CheckpointRequest, Dialect, FromChild, Noise, ToChild};

/// A child may run ahead by this many messages; past it the session asks not to be fed.
const MAX_WAITING: usize = 1000;
/// Or by this many bytes of text in them.
const MAX_WAITING_TEXT: usize = 1024 * 1024;

/// The state of one conversation.
#[derive(Debug, Default)]
pub struct Session {
    dialect: Dialect,
    open: Option<Action>,
    /// The request whose answer is being worked out.
    owed: Option<CheckpointRequest>,
    waiting: VecDeque<FromChild>,
    /// How many of `waiting` were there before the open action began.
    early: usize,
}

/// A second action, while one is open: the caller's bug, never the child's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// The action that is still open.
    pub open: Action,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the action {} is still open", self.open)
    }
}

impl std::error::Error for Busy {}

/// What a line was, told when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message (or an empty line): nothing to tell.
    Taken,
    /// Not a message: worth a log line, nothing else.
    Noise(Noise),
}

/// What the child's messages mean, told one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The open action is done; the session is idle.
    Done(Action),
    /// The child named another action: the open one has failed; the session is idle.
    Wrong {
        /// The action that was open.
        open: Action,
        /// What the child named.
        response_for: Option<String>,
    },
    /// Progress to store. [`Session::acknowledge`] is owed before anything else is interpreted.
    Checkpoint {
        /// What the child wants.
        request: CheckpointRequest,
        /// It was there before the open action began, so it can't mean what that action brought. One
        /// that was still in the pipe then can't be told apart.
        early: bool,
    },
    /// A `status` from before the open action: dropped.
    Stale {
        /// What the child named.
        response_for: Option<String>,
    },
    /// A message that only a daemon sends: dropped.
    Foreign {
        /// Its `action`.
        action: &'static str,
    },
}

impl Session {
    /// A conversation that hasn't begun.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// Opens the action of `message` and appends its line to `out`.
    ///
    /// # Errors
    /// [`Busy`] while another action is open; nothing is written then.
    pub fn begin(&mut self, message: &ToChild<'_>, out: &mut Vec<u8>) -> Result<(), Busy> {
        self.start(message.action())?;
        message.write_line(self.dialect, out);
        Ok(())
    }

    /// Opens [`Action::ProcessRecords`], whose line goes another way: [`crate::BatchLine`].
    ///
    /// # Errors
    /// [`Busy`] while another action is open.
    pub fn begin_batch(&mut self) -> Result<(), Busy> {
        self.start(Some(Action::ProcessRecords))
    }

    fn start(&mut self, action: Option<Action>) -> Result<(), Busy> {
        if let Some(open) = self.open {
            return Err(Busy { open });
        }
        self.open = action;
        self.early = self.waiting.len();
        Ok(())
    }

    /// Takes a line of the child in.
    pub fn receive(&mut self, line: &Line) -> Received {
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::Cut { .. } => return Received::Noise(Noise::TooLong),
        };
        match FromChild::parse(bytes) {
            FromChild::Empty => Received::Taken,
            FromChild::Noise(noise) => Received::Noise(noise),
            message @ (FromChild::Status { .. } | FromChild::Checkpoint(_) | FromChild::Foreign { .. }) => {
                self.waiting.push_back(message);
                Received::Taken
            }
        }
    }

    /// Interprets the next message, if an action is open and no answer is owed.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: the result depends on begin and acknowledge"
    )]
    pub fn next(&mut self) -> Option<Event> {
        let open = self.open?;
        if self.owed.is_some() {
            return None;
        }
        loop {
            let message = self.waiting.pop_front()?;
            let early = self.early > 0;
            self.early = self.early.saturating_sub(1);
            match message {
                FromChild::Status { response_for } if early => {
                    return Some(Event::Stale { response_for });
                }
                FromChild::Status { response_for } => {
                    self.open = None;
                    return Some(if response_for.as_deref() == Some(self.dialect.answer_to(open)) {
                        Event::Done(open)
                    } else {
                        Event::Wrong { open, response_for }
                    });
                }
                FromChild::Checkpoint(request) => {
                    self.owed = Some(request.clone());
                    return Some(Event::Checkpoint { request, early });
                }
                FromChild::Foreign { action } => return Some(Event::Foreign { action }),
                FromChild::Empty | FromChild::Noise(_) => {}
            }
        }
    }

    /// Answers the checkpoint that is owed, echoing the numbers as the child gave them. Without one
    /// nothing is written.
    pub fn acknowledge(&mut self, outcome: Result<(), CheckpointFailure>, out: &mut Vec<u8>) {
        if let Some(request) = self.owed.take() {
            let failure = outcome.err().map(|failure| match (self.dialect, self.open, failure) {
                // There a lost lease leaves the child its checkpointer, which can only say this.
                (Dialect::Shutdown, Some(Action::LeaseLost), CheckpointFailure::InvalidState) => {
                    CheckpointFailure::Shutdown
                }
                (_, _, failure) => failure,
            });
            ToChild::Checkpoint {
                sequence_number: request.sequence_number.as_deref(),
                sub_sequence_number: request.sub_sequence_number,
                error: failure.map(CheckpointFailure::name),
            }
            .write_line(self.dialect, out);
        }
    }

    /// Nothing can be written to the child any more: nothing is owed, and what it says is not interpreted.
    pub fn hang_up(&mut self) {
        (self.open, self.owed) = (None, None);
    }

    /// Whether an answer is owed: what the child said after its request isn't interpreted before that.
    pub fn is_owing(&self) -> bool {
        self.owed.is_some()
    }

    /// The open action.
    pub fn open(&self) -> Option<Action> {
        self.open
    }

    /// False while the child has run too far ahead: leave its lines in the pipe.
    pub fn wants_input(&self) -> bool {
        let text = |message: &FromChild| match message {
            FromChild::Status { response_for: text }
            | FromChild::Checkpoint(CheckpointRequest { sequence_number: text, .. }) => {
                text.as_ref().map_or(0, String::len)
            }
            FromChild::Foreign { .. } | FromChild::Empty | FromChild::Noise(_) => 0,
        };
        self.waiting.len() < MAX_WAITING && self.waiting.iter().map(text).sum::<usize>() < MAX_WAITING_TEXT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(session: &mut Session, text: &str) -> Received {
        session.receive(&Line::Whole(text.as_bytes().to_vec()))
    }

    fn status(session: &mut Session, action: &str) {
        say(session, &format!(r#"{{"action":"status","responseFor":"{action}"}}"#));
    }

    fn begin(session: &mut Session, message: &ToChild<'_>) {
        session.begin(message, &mut Vec::new()).unwrap();
    }

    #[test]
    fn an_action_ends_with_its_status() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::LeaseLost);
        assert_eq!(session.next(), None);
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
        assert_eq!(session.open(), None);
    }

    #[test]
    fn a_second_action_is_refused() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShardEnded);
        let mut out = Vec::new();
        assert_eq!(session.begin(&ToChild::LeaseLost, &mut out), Err(Busy { open: Action::ShardEnded }));
        assert!(out.is_empty());
    }

    #[test]
    fn another_answer_fails_the_action() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShutdownRequested);
        status(&mut session, "shutdown");
        let expected =
            Event::Wrong { open: Action::ShutdownRequested, response_for: Some("shutdown".into()) };
        assert_eq!(session.next(), Some(expected));
        assert_eq!(session.open(), None);
    }

    #[test]
    fn checkpoints_in_flight_are_answered_one_by_one() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShardEnded);
        say(&mut session, r#"{"action":"checkpoint","sequenceNumber":"1"}"#);
        say(&mut session, r#"{"action":"checkpoint","sequenceNumber":"2","subSequenceNumber":0}"#);
        status(&mut session, "shardEnded");
        assert!(
            matches!(session.next(), Some(Event::Checkpoint { request: r, early: false }) if r.sequence_number.as_deref() == Some("1"))
        );
        assert_eq!(session.next(), None, "an answer is owed first");
        let mut out = Vec::new();
        session.acknowledge(Ok(()), &mut out);
        assert!(
            matches!(session.next(), Some(Event::Checkpoint { request: r, early: false }) if r.sequence_number.as_deref() == Some("2"))
        );
        session.acknowledge(Err(CheckpointFailure::Shutdown), &mut out);
        assert_eq!(session.next(), Some(Event::Done(Action::ShardEnded)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"action\":\"checkpoint\",\"sequenceNumber\":\"1\",\"subSequenceNumber\":null,\"error\":null}\n\
             {\"action\":\"checkpoint\",\"sequenceNumber\":\"2\",\"subSequenceNumber\":0,\"error\":\"ShutdownException\"}\n"
        );
    }

    #[test]
    fn what_comes_between_actions_waits_for_the_next_but_a_status_does_not_answer_it() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::LeaseLost);
        status(&mut session, "leaseLost");
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
        say(&mut session, r#"{"action":"checkpoint"}"#);
        assert_eq!(session.next(), None, "nothing is open");
        begin(&mut session, &ToChild::LeaseLost);
        assert_eq!(session.next(), Some(Event::Stale { response_for: Some("leaseLost".into()) }));
        assert!(matches!(session.next(), Some(Event::Checkpoint { early: true, .. })));
        session.acknowledge(Ok(()), &mut Vec::new());
        assert_eq!(session.next(), None);
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
    }

    #[test]
    fn nothing_is_owed_to_a_child_whose_stdin_is_closed() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShutdownRequested);
        say(&mut session, r#"{"action":"checkpoint"}"#);
        assert!(matches!(session.next(), Some(Event::Checkpoint { .. })));
        session.hang_up();
        assert!(!session.is_owing());
        say(&mut session, r#"{"action":"checkpoint"}"#);
        assert_eq!(session.next(), None);
        let mut out = Vec::new();
        session.acknowledge(Ok(()), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn old_children_are_told_of_the_end_by_shutdown_and_its_reason() {
        let mut session = Session::new(Dialect::Shutdown);
        let mut out = Vec::new();
        session.begin(&ToChild::ShardEnded, &mut out).unwrap();
        status(&mut session, "shutdown");
        assert_eq!(session.next(), Some(Event::Done(Action::ShardEnded)));
        session.begin(&ToChild::LeaseLost, &mut out).unwrap();
        say(&mut session, r#"{"action":"checkpoint"}"#);
        assert!(matches!(session.next(), Some(Event::Checkpoint { .. })));
        session.acknowledge(Err(CheckpointFailure::InvalidState), &mut out);
        status(&mut session, "leaseLost");
        assert!(matches!(session.next(), Some(Event::Wrong { open: Action::LeaseLost, .. })));
        session.begin(&ToChild::ShutdownRequested, &mut out).unwrap();
        status(&mut session, "shutdownRequested");
        assert_eq!(session.next(), Some(Event::Done(Action::ShutdownRequested)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"action\":\"shutdown\",\"reason\":\"TERMINATE\"}\n{\"action\":\"shutdown\",\"reason\":\"ZOMBIE\"}\n\
             {\"action\":\"checkpoint\",\"sequenceNumber\":null,\"subSequenceNumber\":null,\"error\":\"ShutdownException\"}\n\
             {\"action\":\"shutdownRequested\"}\n"
        );
    }

    #[test]
    fn noise_is_told_when_it_comes_and_a_flood_of_messages_is_bounded() {
        let mut session = Session::default();
        assert_eq!(say(&mut session, "hello"), Received::Noise(Noise::NotAnObject));
        assert_eq!(session.receive(&Line::Cut { head: vec![], length: 1 }), Received::Noise(Noise::TooLong));
        for _ in 0..MAX_WAITING {
            assert!(session.wants_input());
            say(&mut session, r#"{"action":"checkpoint"}"#);
        }
        assert!(!session.wants_input());
        let mut session = Session::default();
        say(
            &mut session,
            &format!(r#"{{"action":"status","responseFor":"{}"}}"#, "x".repeat(MAX_WAITING_TEXT)),
        );
        assert!(!session.wants_input(), "one can be a flood");
    }
}
