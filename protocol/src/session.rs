//! The conversation with one child as a state machine without I/O: the open action and the pending checkpoint
//! answer.
//!
//! ```text
//! idle --begin--> open --status of that name--> idle
//!                 open --checkpoint--> owing --acknowledge--> open
//! ```
//!
//! The caller feeds lines at any time ([`Session::receive`]), so that a child that prints noise or dies while
//! idle is noticed at once. A message is *interpreted* only while an action is open ([`Session::next`]), in the
//! order of arrival: a checkpoint that a client sends after its `status` is processed within the next action,
//! as in Java. One difference from Java is intentional: a `status` that arrived before its action was opened is
//! reported and dropped. In Java it would complete the next action too early, and shift every later `status` by
//! one action.
//!
//! In KCL: `MultiLangProtocol.waitForStatusMessage`.

use std::collections::VecDeque;

use crate::action::Action;
use crate::failure::CheckpointFailure;
use crate::line::Line;
use crate::message::{CheckpointRequest, Dialect, FromChild, Noise, ToChild};

/// Maximum number of messages that wait for interpretation; beyond it [`Session::wants_input`] is false.
const MAX_WAITING: usize = 1000;
/// Maximum size of the text in waiting messages, in bytes; beyond it [`Session::wants_input`] is false.
const MAX_WAITING_TEXT: usize = 1024 * 1024;

/// The state of one conversation.
#[derive(Debug, Default)]
pub struct Session {
    dialect: Dialect,
    open: Option<Action>,
    /// The checkpoint request that has not been answered yet.
    owed: Option<CheckpointRequest>,
    waiting: VecDeque<FromChild>,
    /// Number of messages in `waiting` that arrived before the open action began.
    early: usize,
}

/// An attempt to open an action while another one is open: a bug of the caller, never of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// The action that is open.
    pub open: Action,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the action {} is still open", self.open)
    }
}

impl std::error::Error for Busy {}

/// The immediate classification of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message (or an empty line), queued for [`Session::next`].
    Taken,
    /// Not a message: to be logged and otherwise ignored.
    Noise(Noise),
}

/// The meaning of a child's message, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The child completed the open action; the session is idle.
    Done(Action),
    /// The child named another action: the open one failed; the session is idle.
    Wrong {
        /// The action that was open.
        open: Action,
        /// The action that the child named.
        response_for: Option<String>,
    },
    /// A sequence number to store. No further message is interpreted until [`Session::acknowledge`] is called.
    Checkpoint {
        /// The request.
        request: CheckpointRequest,
        /// The request arrived before the open action began, so it cannot refer to records of that action. A
        /// request that was still in the pipe at that moment cannot be recognised.
        early: bool,
    },
    /// A `status` from before the open action; it is dropped.
    Stale {
        /// The action that the child named.
        response_for: Option<String>,
    },
    /// A message that only a daemon sends; it is dropped.
    Foreign {
        /// The value of its `action` field.
        action: &'static str,
    },
}

impl Session {
    /// Creates an idle session.
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

    /// Opens [`Action::ProcessRecords`] without writing its line, which [`crate::BatchLine`] writes.
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

    /// Processes a line of the child.
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

    /// Interprets the next message, if an action is open and no checkpoint answer is pending.
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

    /// Answers the pending checkpoint request with the numbers that the child sent. Writes nothing if none is
    /// pending.
    pub fn acknowledge(&mut self, outcome: Result<(), CheckpointFailure>, out: &mut Vec<u8>) {
        if let Some(request) = self.owed.take() {
            let failure = outcome.err().map(|failure| match (self.dialect, self.open, failure) {
                // In this dialect the child keeps its checkpointer after a lost lease, and that checkpointer
                // can only throw a `ShutdownException`.
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

    /// Marks the child's stdin as closed: no answer is pending any more and no further message is interpreted.
    pub fn hang_up(&mut self) {
        (self.open, self.owed) = (None, None);
    }

    /// Whether a checkpoint answer is pending; until then no further message is interpreted.
    pub fn is_owing(&self) -> bool {
        self.owed.is_some()
    }

    /// The open action, if any.
    pub fn open(&self) -> Option<Action> {
        self.open
    }

    /// The messages that were not interpreted, in the order of arrival: an action must be open for that.
    pub fn waiting(&self) -> impl Iterator<Item = &FromChild> {
        self.waiting.iter()
    }

    /// Whether the child may send more. False if too many messages wait: the caller then leaves its lines in
    /// the pipe.
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

    fn feed(session: &mut Session, text: &str) -> Received {
        session.receive(&Line::Whole(text.as_bytes().to_vec()))
    }

    fn status(session: &mut Session, action: &str) {
        feed(session, &format!(r#"{{"action":"status","responseFor":"{action}"}}"#));
    }

    fn begin(session: &mut Session, message: &ToChild<'_>) {
        session.begin(message, &mut Vec::new()).unwrap();
    }

    #[test]
    fn action_ends_with_its_status() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::LeaseLost);
        assert_eq!(session.next(), None);
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
        assert_eq!(session.open(), None);
    }

    #[test]
    fn second_action_while_one_is_open_is_rejected() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShardEnded);
        let mut out = Vec::new();
        assert_eq!(session.begin(&ToChild::LeaseLost, &mut out), Err(Busy { open: Action::ShardEnded }));
        assert!(out.is_empty());
    }

    #[test]
    fn status_for_another_action_fails_the_action() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShutdownRequested);
        status(&mut session, "shutdown");
        let expected =
            Event::Wrong { open: Action::ShutdownRequested, response_for: Some("shutdown".into()) };
        assert_eq!(session.next(), Some(expected));
        assert_eq!(session.open(), None);
    }

    #[test]
    fn pipelined_checkpoints_are_answered_one_by_one() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShardEnded);
        feed(&mut session, r#"{"action":"checkpoint","sequenceNumber":"1"}"#);
        feed(&mut session, r#"{"action":"checkpoint","sequenceNumber":"2","subSequenceNumber":0}"#);
        status(&mut session, "shardEnded");
        assert!(
            matches!(session.next(), Some(Event::Checkpoint { request: r, early: false }) if r.sequence_number.as_deref() == Some("1"))
        );
        assert_eq!(session.next(), None, "the checkpoint answer is pending");
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
    fn messages_between_actions_wait_but_early_status_is_stale() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::LeaseLost);
        status(&mut session, "leaseLost");
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
        feed(&mut session, r#"{"action":"checkpoint"}"#);
        assert_eq!(session.next(), None, "no action is open");
        begin(&mut session, &ToChild::LeaseLost);
        assert_eq!(session.next(), Some(Event::Stale { response_for: Some("leaseLost".into()) }));
        assert!(matches!(session.next(), Some(Event::Checkpoint { early: true, .. })));
        session.acknowledge(Ok(()), &mut Vec::new());
        assert_eq!(session.next(), None);
        status(&mut session, "leaseLost");
        assert_eq!(session.next(), Some(Event::Done(Action::LeaseLost)));
    }

    #[test]
    fn closed_stdin_cancels_the_pending_checkpoint_answer() {
        let mut session = Session::default();
        begin(&mut session, &ToChild::ShutdownRequested);
        feed(&mut session, r#"{"action":"checkpoint"}"#);
        assert!(matches!(session.next(), Some(Event::Checkpoint { .. })));
        session.hang_up();
        assert!(!session.is_owing());
        feed(&mut session, r#"{"action":"checkpoint"}"#);
        assert_eq!(session.next(), None);
        let mut out = Vec::new();
        session.acknowledge(Ok(()), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn shutdown_dialect_sends_shutdown_with_its_reason() {
        let mut session = Session::new(Dialect::Shutdown);
        let mut out = Vec::new();
        session.begin(&ToChild::ShardEnded, &mut out).unwrap();
        status(&mut session, "shutdown");
        assert_eq!(session.next(), Some(Event::Done(Action::ShardEnded)));
        session.begin(&ToChild::LeaseLost, &mut out).unwrap();
        feed(&mut session, r#"{"action":"checkpoint"}"#);
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
    fn noise_is_reported_at_once_and_waiting_is_bounded() {
        let mut session = Session::default();
        assert_eq!(feed(&mut session, "hello"), Received::Noise(Noise::NotAnObject));
        assert_eq!(session.receive(&Line::Cut { head: vec![], length: 1 }), Received::Noise(Noise::TooLong));
        for _ in 0..MAX_WAITING {
            assert!(session.wants_input());
            feed(&mut session, r#"{"action":"checkpoint"}"#);
        }
        assert!(!session.wants_input());
        let mut session = Session::default();
        feed(
            &mut session,
            &format!(r#"{{"action":"status","responseFor":"{}"}}"#, "x".repeat(MAX_WAITING_TEXT)),
        );
        assert!(!session.wants_input(), "one large message reaches the bound");
    }
}
