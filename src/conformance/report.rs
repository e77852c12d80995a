//! The report of a run: text for a person, JUnit XML for a build server.

use std::fmt::Write as _;
use std::time::Duration;

use super::finding::{Finding, KINDS, Row, Severity, count};

/// The result of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The name of the case.
    pub case: &'static str,
    /// Its findings.
    pub findings: Vec<Finding>,
    /// The duration.
    pub took: Duration,
}

/// Cases that a finding lists by name.
const NAMED: usize = 6;

impl Outcome {
    fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity() == severity)
    }

    /// Whether the case failed; if `strict`, a note is a failure.
    pub fn is_failed(&self, strict: bool) -> bool {
        if strict { !self.findings.is_empty() } else { self.of(Severity::Failure).next().is_some() }
    }

    /// The line of the case.
    pub fn line(&self, strict: bool) -> String {
        let codes: Vec<&str> = self.findings.iter().map(|finding| finding.kind.row().code).collect();
        let word = match (self.is_failed(strict), codes.is_empty()) {
            (true, _) => "FAILED",
            (false, true) => "ok",
            (false, false) => "note",
        };
        let line =
            format!("{word:<7} {:<32} {:>6.2} s  {}", self.case, self.took.as_secs_f64(), codes.join(", "));
        line.trim_end().to_owned() + "\n"
    }
}

/// The findings of a run, each kind once, and the verdict.
pub fn summary(outcomes: &[Outcome], strict: bool) -> String {
    let mut text = String::new();
    for row in KINDS {
        // Writing to a text does not fail.
        let _written = explain(row, outcomes, &mut text).is_ok();
    }
    let failed = outcomes.iter().filter(|outcome| outcome.is_failed(strict)).count();
    let noted =
        outcomes.iter().filter(|outcome| !outcome.is_failed(strict) && !outcome.findings.is_empty()).count();
    let verdict = if failed > 0 { "FAILED" } else { "ok" };
    let notes = if noted > 0 { format!(", {noted} with notes") } else { String::new() };
    let _written = write!(
        text,
        "\n{verdict}: {} of {} passed{notes}\n",
        outcomes.len() - failed,
        count(outcomes.len() as u64, "case")
    )
    .is_ok();
    text
}

fn explain(row: &Row, outcomes: &[Outcome], text: &mut String) -> std::fmt::Result {
    let of = |outcome: &Outcome| outcome.findings.iter().find(|finding| finding.kind == row.kind).cloned();
    let found: Vec<(&str, Finding)> =
        outcomes.iter().filter_map(|outcome| Some((outcome.case, of(outcome)?))).collect();
    let Some((_, first)) = found.first() else { return Ok(()) };
    let mut cases: Vec<&str> = found.iter().take(NAMED).map(|(case, _)| *case).collect();
    let more = format!("{} more", found.len().saturating_sub(NAMED));
    if found.len() > NAMED {
        cases.push(&more);
    }
    let word = match row.severity {
        Severity::Failure => "failure",
        Severity::Note => "note",
    };
    write!(text, "\n{word} {}: {}\n", row.code, row.about)?;
    writeln!(text, "  cases     {}", cases.join(", "))?;
    if first.sent != "-" {
        writeln!(text, "  sent      {}", first.sent)?;
    }
    writeln!(text, "  expected  {}", first.expected)?;
    writeln!(text, "  came      {}", first.came)?;
    if row.effect != "-" {
        writeln!(text, "  effect    {}", row.effect)?;
    }
    writeln!(text, "  remedy    {}", row.remedy)
}

/// The run as JUnit XML: one test case for each case. Notes are output of their case, or failures if `strict`.
pub fn junit(program: &str, outcomes: &[Outcome], strict: bool) -> String {
    let failed = outcomes.iter().filter(|outcome| outcome.is_failed(strict)).count();
    let took: f64 = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
    let total = outcomes.len();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"multilangd test\" \
         tests=\"{total}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"{took:.3}\">\n"
    );
    for outcome in outcomes {
        let time = outcome.took.as_secs_f64();
        text.push_str(&format!(
            "<testcase classname=\"{}\" name=\"{}\" time=\"{time:.3}\">",
            escaped(program),
            escaped(outcome.case)
        ));
        let is_failure = |finding: &&Finding| strict || finding.severity() == Severity::Failure;
        let failures: Vec<&Finding> = outcome.findings.iter().filter(is_failure).collect();
        if let Some(first) = failures.first() {
            text.push_str(&format!(
                "\n<failure type=\"{}\" message=\"{}\">{}</failure>",
                first.kind.row().code,
                escaped(first.kind.row().about),
                escaped(&described(&failures))
            ));
        }
        let notes: Vec<&Finding> = outcome.findings.iter().filter(|finding| !is_failure(finding)).collect();
        if !notes.is_empty() {
            text.push_str(&format!("\n<system-out>{}</system-out>", escaped(&described(&notes))));
        }
        let end = if outcome.findings.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{end}</testcase>\n"));
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

fn described(findings: &[&Finding]) -> String {
    let texts = findings.iter().map(|finding| {
        let row = finding.kind.row();
        format!(
            "{}: {}\nsent: {}\nexpected: {}\ncame: {}\nremedy: {}\n",
            row.code, row.about, finding.sent, finding.expected, finding.came, row.remedy
        )
    });
    texts.collect::<Vec<String>>().join("\n")
}

/// Text for XML: markup is escaped, and characters that XML 1.0 does not allow are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push(char::REPLACEMENT_CHARACTER),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::finding::Kind;
    use super::*;

    fn outcome(case: &'static str, kinds: &[Kind]) -> Outcome {
        let finding = |kind: &Kind| Finding {
            kind: *kind,
            sent: "leaseLost".to_owned(),
            expected: "a status".to_owned(),
            came: "<\u{1}&\"".to_owned(),
        };
        let findings = kinds.iter().map(finding).collect();
        Outcome { case, findings, took: Duration::from_millis(1_500) }
    }

    #[test]
    fn note_fails_a_case_only_if_strict() {
        let (noted, failed) = (outcome("a", &[Kind::ExitCode]), outcome("b", &[Kind::NoAnswer]));
        let seen = |one: &Outcome| [one.is_failed(false), one.is_failed(true)];
        assert_eq!((seen(&noted), seen(&failed)), ([false, true], [true, true]));
        assert_eq!(seen(&outcome("c", &[])), [false, false]);
        assert!(noted.line(false).starts_with("note ") && noted.line(true).starts_with("FAILED "));
    }

    #[test]
    fn summary_explains_each_kind_once() {
        let outcomes: Vec<Outcome> =
            ["a", "b", "c", "d", "e", "f", "g", "h"].map(|case| outcome(case, &[Kind::NoAnswer])).to_vec();
        let text = summary(&outcomes, false);
        assert_eq!(text.matches("no-answer").count(), 1);
        assert!(text.contains("a, b, c, d, e, f, 2 more") && text.contains("0 of 8 cases"), "{text}");
    }

    #[test]
    fn junit_is_escaped_and_counts_failures() {
        let outcomes = [outcome("a", &[]), outcome("b", &[Kind::NoAnswer]), outcome("c", &[Kind::ExitCode])];
        let text = junit("./a \"b\"", &outcomes, false);
        assert!(text.contains("tests=\"3\" failures=\"1\"") && text.contains("time=\"4.500\""), "{text}");
        assert!(
            text.contains("came: &lt;\u{fffd}&amp;&quot;") && text.contains("./a &quot;b&quot;"),
            "{text}"
        );
        assert!(text.contains("<system-out>exit-code") && !text.contains('\u{1}'), "{text}");
        assert_eq!(junit("p", &outcomes, true).matches("<failure ").count(), 2);
    }
}
