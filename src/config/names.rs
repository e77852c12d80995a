//! Checks names of streams, tables and fan-out consumers against the limits of AWS.
//!
//! An unfilled template (`<STREAM_NAME>`, `${STAGE}-orders`) would otherwise fail only at the first call,
//! with a ValidationException that names no key. The limits are those of the API references: `CreateStream`,
//! `CreateTable`, `RegisterStreamConsumer`.

/// The kind of resource that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A Kinesis stream.
    Stream,
    /// A DynamoDB table, or its ARN.
    Table,
    /// A registered consumer for enhanced fan-out.
    Consumer,
}

impl Kind {
    /// The service, and its term for the resource.
    fn thing(self) -> &'static str {
        match self {
            Self::Stream => "Kinesis stream",
            Self::Table => "DynamoDB table",
            Self::Consumer => "Kinesis fan-out consumer",
        }
    }

    /// The minimum and maximum length.
    fn lengths(self) -> (usize, usize) {
        match self {
            Self::Stream | Self::Consumer => (1, 128),
            Self::Table => (3, 255),
        }
    }
}

/// Why AWS refuses a name: the fault, the allowed names, and a hint if the cause is known. None for a valid
/// name.
pub(super) fn fault(kind: Kind, name: &str) -> Option<String> {
    let (least, most) = kind.lengths();
    let is_arn = kind == Kind::Table && name.starts_with("arn:") && name.contains(":table/");
    let strange = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c)));
    let length = name.chars().count();
    if is_arn || strange.is_none() && (least..=most).contains(&length) {
        return None;
    }
    let wrong = match strange {
        Some(strange) => format!("contains {strange:?}"),
        None => format!("has {length} characters"),
    };
    let thing = kind.thing();
    Some(format!(
        "{wrong}: a {thing} name has {least} to {most} of the characters a-z A-Z 0-9 _ . -{}",
        hint(name)
    ))
}

fn hint(name: &str) -> &'static str {
    let quotes = |c| name.len() > 1 && name.starts_with(c) && name.ends_with(c);
    if name.contains("${") {
        " (--expand-env replaces ${NAME} by an environment variable)"
    } else if name.contains('<') && name.contains('>') {
        " (replace the placeholder)"
    } else if quotes('"') || quotes('\'') {
        " (remove the quotes: they are part of the value)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_within_the_limits_are_accepted() {
        for (kind, name) in [
            (Kind::Stream, "s".to_owned()),
            (Kind::Stream, "a-Z_0.9".to_owned()),
            (Kind::Stream, "x".repeat(128)),
            (Kind::Consumer, "c".repeat(128)),
            (Kind::Table, "abc".to_owned()),
            (Kind::Table, "t".repeat(255)),
            (Kind::Table, "arn:aws:dynamodb:eu-west-1:123456789012:table/leases".to_owned()),
        ] {
            assert_eq!(fault(kind, &name), None, "{kind:?} {name}");
        }
    }

    #[test]
    fn names_outside_the_limits_are_rejected() {
        for (kind, name) in [
            (Kind::Stream, String::new()),
            (Kind::Stream, "x".repeat(129)),
            (Kind::Consumer, "c".repeat(129)),
            (Kind::Consumer, "a b".to_owned()),
            (Kind::Table, "ab".to_owned()),
            (Kind::Table, "t".repeat(256)),
            (Kind::Table, "orders/leases".to_owned()),
            (Kind::Stream, "arn:aws:kinesis:eu-west-1:123456789012:stream/s".to_owned()),
            (Kind::Stream, "été".to_owned()),
        ] {
            let text = fault(kind, &name).unwrap_or_else(|| panic!("{kind:?} {name}"));
            assert!(text.contains("a-z A-Z 0-9 _ . -"), "{text}");
        }
    }

    #[test]
    fn placeholder_variable_and_quotes_get_a_hint() {
        for (name, part) in [
            ("<STREAM_NAME>", "placeholder"),
            ("${STAGE}-orders", "--expand-env"),
            ("\"orders\"", "quotes"),
            ("'orders'", "quotes"),
        ] {
            let text = fault(Kind::Stream, name).unwrap();
            assert!(text.contains(part), "{text}");
        }
    }
}
