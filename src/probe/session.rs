//! A sequence of calls of one service. It ends when the service is not reached or does not accept the credentials: each
//! further call would take its time limit and say the same.

use super::judge::{Judgement, judge};
use super::port::{Api, Call, Reply, Service};
use super::report::{Line, Section, Status};
use crate::config::permissions::{Permission, Probe};
use crate::exit::Exit;

/// The calls of one service.
pub struct Session<'a> {
    api: &'a dyn Api,
    service: Service,
    /// Why no more calls are made.
    ended: Option<String>,
    /// The lines so far.
    pub lines: Vec<Line>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// A session that makes no calls if `ended` is a reason for that.
    pub fn new(api: &'a dyn Api, service: Service, ended: Option<String>) -> Self {
        Self { api, service, ended, lines: Vec::new() }
    }

    /// Why no more calls are made.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Makes a call, unless the session has ended. The call is no proof of a permission that the daemon needs.
    pub async fn call(&mut self, call: &Call) -> Option<Reply> {
        if self.ended.is_some() {
            return None;
        }
        let reply = self.api.call(call).await;
        if let Judgement::Unreached(why) = judge(&reply) {
            let failed = Status::Failed(Exit::Unavailable);
            self.lines.push(Line::of(Section::Endpoints, failed, self.service.to_string(), why));
            self.ended = Some(format!("{} was not reached", self.service));
            return None;
        }
        Some(reply)
    }

    /// Makes a call that shows whether its permission on a resource is granted.
    pub async fn probe(&mut self, call: &Call, on: &str) -> Option<Reply> {
        let reply = self.call(call).await;
        self.judged(call, on, reply.as_ref());
        reply
    }

    /// Adds the line of a call's permission.
    pub fn judged(&mut self, call: &Call, on: &str, reply: Option<&Reply>) {
        let (status, text) = match reply.map(judge) {
            None => (Status::NotChecked, self.ended.clone().unwrap_or_default()),
            Some(Judgement::Granted) => (Status::Ok, String::new()),
            Some(Judgement::Denied(text)) => (Status::Failed(Exit::Denied), text),
            // A name, or a table with another key: the file must change.
            Some(Judgement::Unknown(text)) => (Status::Failed(Exit::Config), text),
            Some(Judgement::Credentials(text)) => {
                self.ended = Some(format!("{} does not accept the credentials", self.service));
                (Status::Failed(Exit::Denied), text)
            }
            Some(Judgement::Unsupported(text)) => {
                (Status::Warning, format!("the endpoint does not support the call: {text}"))
            }
            Some(Judgement::Fault(text) | Judgement::Unreached(text)) => {
                (Status::Failed(Exit::Unavailable), text)
            }
        };
        self.line(status, call.action(), on, text);
    }

    /// Adds a line about a permission.
    pub fn line(&mut self, status: Status, action: &'static str, on: &str, text: impl Into<String>) {
        self.lines.push(Line::permission(status, action, on, text));
    }

    /// Adds the line of a permission that every call would use with an effect.
    pub fn effect(&mut self, permission: &Permission, on: &str) {
        self.lines.extend(effect(permission, on));
    }
}

/// The line of a permission that every call would use with an effect; none for another permission.
pub fn effect(permission: &Permission, on: &str) -> Option<Line> {
    let Probe::Effect(effect) = permission.probe else { return None };
    let text = format!("the call would {effect}");
    Some(Line::permission(Status::NotChecked, permission.action, on, text))
}

#[cfg(test)]
mod tests {
    use super::super::memory::Scripted;
    use super::super::port::Table;
    use super::*;

    #[tokio::test]
    async fn unreached_service_is_one_failure_and_ends_the_session() {
        let api = Scripted::default().unreached(Service::DynamoDb, "http://h:1: refused");
        let mut session = Session::new(&api, Service::DynamoDb, None);
        session.probe(&Call::Scan(Table::Leases), "table t").await;
        session.probe(&Call::Get(Table::Leases), "table t").await;
        assert_eq!(api.calls().len(), 1);
        let statuses: Vec<_> = session.lines.iter().map(|line| (line.section, line.status)).collect();
        assert_eq!(
            statuses,
            [
                (Section::Endpoints, Status::Failed(Exit::Unavailable)),
                (Section::Permissions, Status::NotChecked),
                (Section::Permissions, Status::NotChecked),
            ]
        );
        assert!(session.lines[0].text.contains("http://h:1"), "{:?}", session.lines);
    }

    #[tokio::test]
    async fn invalid_call_is_no_denial() {
        let api = Scripted::default().refusing("dynamodb:GetItem", "ValidationException");
        let mut session = Session::new(&api, Service::DynamoDb, None);
        session.probe(&Call::Get(Table::State), "table t").await;
        assert_eq!(session.lines[0].status, Status::Failed(Exit::Config));
    }

    #[tokio::test]
    async fn rejected_credentials_are_named_once_with_the_action() {
        let api = Scripted::default().refusing("kinesis:ListShards", "ExpiredTokenException");
        let mut session = Session::new(&api, Service::Kinesis, None);
        session.probe(&Call::Shards, "stream s").await;
        session.probe(&Call::Iterator("x".to_owned()), "stream s").await;
        assert_eq!(api.calls(), [Call::Shards]);
        assert_eq!(session.lines[0].status, Status::Failed(Exit::Denied));
        assert_eq!(session.lines[0].action, Some("kinesis:ListShards"));
        assert_eq!(session.lines[1].status, Status::NotChecked);
    }
}
