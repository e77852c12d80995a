//! The constraints of the API's shapes, and the messages of AWS about their violation.
//!
//! AWS collects all violations of a request in one `ValidationException`, as [`Check`] does.

use std::fmt::Display;

use super::error::Exception;

/// Collects violations.
#[derive(Debug, Default)]
pub(super) struct Check {
    violations: Vec<String>,
}

impl Check {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The exception, if a constraint was violated.
    pub(super) fn done(self) -> Result<(), Exception> {
        let count = self.violations.len();
        if count == 0 {
            return Ok(());
        }
        let plural = if count == 1 { "" } else { "s" };
        let list = self.violations.join("; ");
        Err(Exception::validation(format!("{count} validation error{plural} detected: {list}")))
    }

    pub(super) fn violated(&mut self, value: impl Display, member: &str, constraint: impl Display) {
        self.violations.push(format!(
            "Value '{value}' at '{member}' failed to satisfy constraint: Member must {constraint}"
        ));
    }

    pub(super) fn required<T>(&mut self, value: Option<&T>, member: &str) {
        if value.is_none() {
            self.violations.push(format!(
                "Value null at '{member}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }

    pub(super) fn within<N: PartialOrd + Display>(
        &mut self,
        value: Option<N>,
        member: &str,
        least: N,
        most: N,
    ) {
        let Some(value) = value else { return };
        if value < least {
            self.violated(value, member, format!("have value greater than or equal to {least}"));
        } else if value > most {
            self.violated(value, member, format!("have value less than or equal to {most}"));
        }
    }

    pub(super) fn length(&mut self, value: Option<&str>, member: &str, least: usize, most: usize) {
        let Some(value) = value else { return };
        let length = value.chars().count();
        if length < least {
            self.violated(value, member, format!("have length greater than or equal to {least}"));
        } else if length > most {
            self.violated(value, member, format!("have length less than or equal to {most}"));
        }
    }

    pub(super) fn blob(&mut self, length: usize, member: &str, most: usize) {
        if length > most {
            let value = format!("java.nio.HeapByteBuffer[pos=0 lim={length} cap={length}]");
            self.violated(value, member, format!("have length less than or equal to {most}"));
        }
    }

    /// A name of at most 128 letters, digits and `_.-`: streams, shards and consumers.
    pub(super) fn name(&mut self, value: Option<&str>, member: &str) {
        self.length(value, member, 1, 128);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if let Some(value) = value
            && !value.is_empty()
            && !value.bytes().all(legal)
        {
            self.violated(value, member, "satisfy regular expression pattern: [a-zA-Z0-9_.-]+");
        }
    }

    /// A decimal number without leading zeros: `0|([1-9]\d{0,38})`, of up to `digits` digits.
    pub(super) fn decimal(&mut self, value: Option<&str>, member: &str, digits: usize) {
        let Some(value) = value else { return };
        let all_digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = value.len() > 1 && value.starts_with('0');
        if !all_digits || leading_zero || value.len() > digits {
            let more = digits - 1;
            let constraint = format!("satisfy regular expression pattern: 0|([1-9]\\d{{0,{more}}})");
            self.violated(value, member, constraint);
        }
    }

    pub(super) fn one_of(&mut self, value: Option<&str>, member: &str, legal: &[&str]) {
        if let Some(value) = value
            && !legal.contains(&value)
        {
            let list = legal.join(", ");
            self.violated(value, member, format!("satisfy enum value set: [{list}]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_are_reported_at_once() {
        let mut check = Check::new();
        check.name(Some("a b"), "streamName");
        check.within(Some(0), "limit", 1, 10_000);
        check.required::<String>(None, "shardId");
        let message = check.done().unwrap_err().message;
        assert_eq!(
            message,
            "3 validation errors detected: Value 'a b' at 'streamName' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '0' at 'limit' \
             failed to satisfy constraint: Member must have value greater than or equal to 1; Value \
             null at 'shardId' failed to satisfy constraint: Member must not be null"
        );
    }

    #[test]
    fn legal_values_pass() {
        let mut check = Check::new();
        check.name(Some("a_b.c-1"), "streamName");
        check.decimal(Some("0"), "explicitHashKey", 39);
        check.decimal(Some("340282366920938463463374607431768211455"), "explicitHashKey", 39);
        check.one_of(Some("LATEST"), "shardIteratorType", &["LATEST"]);
        assert!(check.done().is_ok());
    }
}
