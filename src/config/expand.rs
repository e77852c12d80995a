//! `${NAME}` in values, if enabled. To Java a `$` is an ordinary character, so the file itself cannot enable
//! it.

use std::collections::BTreeMap;

/// The variable that enables it, like `--expand-env`.
pub const VARIABLE: &str = "MULTILANGD_EXPAND_ENV";

/// Replaces each `${NAME}` by the value of that variable; `$${` becomes `${`.
///
/// # Errors
/// A variable is not set, or a brace is not closed.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = &after[2..];
            continue;
        }
        let Some((name, behind)) = after[2..].split_once('}') else {
            return Err("has a ${ without its }".to_owned());
        };
        let Some(value) = variables.get(name) else {
            return Err(format!("refers to ${{{name}}}, but the environment variable {name} is not set"));
        };
        out.push_str(before);
        out.push_str(value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Escapes a key or a value for a properties file.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            _ => out.push_str(&format!("\\u{unit:04X}")),
        }
    }
    out
}

/// The number of natural lines, as Java counts them.
pub(super) fn lines_of(bytes: &[u8]) -> usize {
    let mut lines = 1;
    let mut before = 0;
    for byte in bytes {
        lines += usize::from(*byte == b'\r' || (*byte == b'\n' && before != b'\r'));
        before = *byte;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once() {
        let variables = BTreeMap::from([("A".to_owned(), "x${B}".to_owned())]);
        assert_eq!(expand("$ a ${A}/${A} $${A} $A", &variables).unwrap(), "$ a x${B}/x${B} ${A} $A");
        assert!(expand("${B}", &variables).unwrap_err().contains("B is not set"));
        assert!(expand("${A", &variables).is_err());
    }

    #[test]
    fn escaped_text_is_parsed_unchanged() {
        let text = format!("{}={}", escaped("a.b c"), escaped(" =ü😀\\"));
        let file = multilangd_properties::File::read(text.as_bytes()).unwrap();
        assert_eq!(file.get("a.b c").map(|entry| entry.value()), Some(" =ü😀\\"));
    }
}
