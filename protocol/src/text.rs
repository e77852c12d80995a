//! Fragments of JSON, formatted as Jackson formats them.

use crate::bytewise::has_any;

/// Writes a JSON string with Jackson's escapes: upper-case hex digits, and every character from U+0020 verbatim
/// except `"` and `\`.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    // The common case: text without escapes is copied in one step.
    if !has_any(bytes, special) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut start = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0C => b'f',
            b'\r' => b'r',
            0x00..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Writes the beginning of a message, up to and including its action.
pub(crate) fn open(out: &mut Vec<u8>, action: &str) {
    out.extend_from_slice(b"{\"action\":\"");
    out.extend_from_slice(action.as_bytes());
    out.push(b'"');
}

/// Writes a field name with the comma that precedes it.
pub(crate) fn put_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes a field that holds an integer, or `null`.
pub(crate) fn put_number<N: itoa::Integer>(out: &mut Vec<u8>, key: &str, value: Option<N>) {
    put_key(out, key);
    match value {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}
