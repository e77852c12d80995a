//! The lines of the report and its verdict, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::exit::Exit;

/// The subject of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The settings of the file.
    Settings,
    /// The endpoints, and the way to them.
    Endpoints,
    /// The credentials.
    Credentials,
    /// The permissions.
    Permissions,
    /// The stream and its consumer.
    Stream,
    /// The tables.
    Tables,
    /// This machine.
    Machine,
}

impl Section {
    const ALL: [Self; 7] = [
        Self::Settings,
        Self::Endpoints,
        Self::Credentials,
        Self::Permissions,
        Self::Stream,
        Self::Tables,
        Self::Machine,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Endpoints => "endpoints",
            Self::Credentials => "credentials",
            Self::Permissions => "permissions",
            Self::Stream => "stream",
            Self::Tables => "tables",
            Self::Machine => "machine",
        }
    }
}

/// The result of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not checked, for the reason in the text.
    NotChecked,
    /// A daemon works, with a restriction.
    Warning,
    /// A daemon would exit with this code.
    Failed(Exit),
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Warning => "warning",
            Self::Failed(Exit::Denied) => "denied",
            Self::Failed(_) => "failed",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The subject.
    pub section: Section,
    /// The result.
    pub status: Status,
    /// The IAM action, of a line about a permission.
    pub action: Option<&'static str>,
    /// The name or ARN of the stream, the table or another thing; empty if there is none.
    pub resource: String,
    /// The details; may be empty.
    pub text: String,
}

impl Line {
    /// A line without an action.
    pub fn of(
        section: Section,
        status: Status,
        resource: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self { section, status, action: None, resource: resource.into(), text: text.into() }
    }

    /// A line about a permission.
    pub fn permission(
        status: Status,
        action: &'static str,
        resource: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let action = Some(action);
        Self { action, ..Self::of(Section::Permissions, status, resource, text) }
    }

    fn shown(&self) -> String {
        let subject = match (self.action, self.resource.as_str()) {
            (Some(action), "") => action.to_owned(),
            (Some(action), resource) => format!("{action} on {resource}"),
            (None, resource) => resource.to_owned(),
        };
        // Messages of AWS about signatures have several lines.
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts = [subject.as_str(), text.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

/// All findings.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The lines, in the order in which they were found.
    pub lines: Vec<Line>,
}

impl Report {
    fn count(&self, counted: impl Fn(Status) -> bool) -> usize {
        self.lines.iter().filter(|line| counted(line.status)).count()
    }

    /// The exit code. A fault of the file precedes a permission, and that precedes a service that was not available.
    pub fn exit(&self) -> Exit {
        let failed = |exit| self.count(|status| status == Status::Failed(exit)) > 0;
        let others = self.count(|status| matches!(status, Status::Failed(_))) > 0;
        let order = [Exit::Config, Exit::Denied, Exit::Unavailable];
        let first = order.into_iter().find(|exit| failed(*exit));
        first.unwrap_or(if others { Exit::Internal } else { Exit::Clean })
    }

    /// The last line of the text.
    fn verdict(&self) -> String {
        let counts = [
            (self.count(|status| matches!(status, Status::Failed(_))), "failed"),
            (self.count(|status| status == Status::Warning), "warnings"),
            (self.count(|status| status == Status::NotChecked), "not checked"),
        ];
        let counts = counts.map(|(count, name)| format!("{count} {name}")).join(", ");
        let exit = self.exit();
        format!("verdict: {}, {counts} (exit code {})", exit.name(), exit.code())
    }

    /// The report as text: sections, and the verdict as the last line.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for section in Section::ALL {
            let lines: Vec<&Line> = self.lines.iter().filter(|line| line.section == section).collect();
            if lines.is_empty() {
                continue;
            }
            let _infallible = writeln!(out, "{}:", section.name());
            for line in lines {
                let _infallible = writeln!(out, "  {:11}  {}", line.status.name(), line.shown());
            }
            out.push('\n');
        }
        out.push_str(&self.verdict());
        out.push('\n');
        out
    }

    /// The report as JSON: `findings`, each with `section`, `status`, `action`, `resource` and `message`, and `verdict`.
    pub fn json(&self) -> Value {
        let findings: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "section": line.section.name(), "status": line.status.name(), "action": line.action,
                    "resource": line.resource, "message": line.text,
                })
            })
            .collect();
        let exit = self.exit();
        let verdict = json!({
            "exit": exit.code(), "name": exit.name(),
            "failed": self.count(|status| matches!(status, Status::Failed(_))),
            "warnings": self.count(|status| status == Status::Warning),
            "notChecked": self.count(|status| status == Status::NotChecked),
        });
        json!({"findings": findings, "verdict": verdict})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[Status]) -> Report {
        let line = |status: &Status| Line::permission(*status, "dynamodb:Scan", "table t", "why");
        Report { lines: statuses.iter().map(line).collect() }
    }

    #[test]
    fn exit_code_is_that_of_the_first_thing_to_change() {
        use Status::{Failed, NotChecked, Ok, Warning};
        let (config, denied, unavailable) =
            (Failed(Exit::Config), Failed(Exit::Denied), Failed(Exit::Unavailable));
        for (statuses, exit) in [
            (&[Ok, NotChecked, Warning][..], Exit::Clean),
            (&[], Exit::Clean),
            (&[Ok, unavailable], Exit::Unavailable),
            (&[unavailable, denied], Exit::Denied),
            (&[unavailable, denied, config], Exit::Config),
        ] {
            assert_eq!(report(statuses).exit(), exit, "{statuses:?}");
        }
    }

    #[test]
    fn message_of_several_lines_stays_on_one() {
        let line = Line::permission(Status::Failed(Exit::Denied), "kinesis:ListShards", "s", "a\nb\n\n c");
        assert_eq!(line.shown(), "kinesis:ListShards on s: a b c");
    }

    #[test]
    fn verdict_is_the_last_line_and_counts() {
        let report = report(&[Status::Ok, Status::NotChecked, Status::Failed(Exit::Denied)]);
        let text = report.text();
        assert_eq!(
            text.lines().last(),
            Some("verdict: denied, 1 failed, 0 warnings, 1 not checked (exit code 77)")
        );
        assert!(text.contains("  denied       dynamodb:Scan on table t: why\n"), "{text}");
        let json = report.json();
        assert_eq!(json["findings"].as_array().unwrap().len(), 3);
        assert_eq!(json["verdict"]["exit"], 77);
        assert_eq!(json["findings"][2]["action"], "dynamodb:Scan");
    }
}
