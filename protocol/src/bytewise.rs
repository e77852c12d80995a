//! Predicates over many bytes, written so that the compiler vectorises them.

/// Whether the text is one or more decimal digits.
pub fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && !has_any(text, |byte| !byte.is_ascii_digit())
}

/// Whether the text is ASCII without characters that JSON escapes. Quotes are allowed: the caller handles them.
pub fn is_plain(text: &[u8]) -> bool {
    !has_any(text, |byte| (byte == b'\\') | !(0x20..0x80).contains(&byte))
}

/// Whether the predicate holds for any byte. Chunks have fixed lengths, so that the compiler vectorises the
/// test of one chunk. The loop over chunks stops at the first match; without that early exit the compiler would
/// vectorise across chunks instead, byte by byte.
#[inline(always)]
pub(crate) fn has_any(bytes: &[u8], is_so: impl Fn(u8) -> bool + Copy) -> bool {
    #[inline(always)]
    fn piece<const N: usize>(piece: &[u8; N], is_so: impl Fn(u8) -> bool) -> bool {
        piece.iter().fold(0, |any, byte| any | u8::from(is_so(*byte))) != 0
    }
    let (long, rest) = bytes.as_chunks::<16>();
    let (short, rest) = rest.as_chunks::<8>();
    long.iter().any(|bytes| piece(bytes, is_so))
        || short.iter().any(|bytes| piece(bytes, is_so))
        || rest.iter().any(|byte| is_so(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_test_every_position() {
        for length in 0..130 {
            let mut bytes = vec![b'1'; length];
            assert!(is_plain(&bytes), "{length}");
            assert_eq!(is_number(&bytes), length > 0, "{length}");
            for at in 0..length {
                for (byte, plain, number) in
                    [(b'x', true, false), (b'9', true, true), (b'\\', false, false), (0x7f, true, false)]
                {
                    bytes[at] = byte;
                    assert_eq!((is_plain(&bytes), is_number(&bytes)), (plain, number), "{at} of {length}");
                }
                bytes[at] = b'1';
            }
        }
    }

    #[test]
    fn predicates_classify_every_byte() {
        for byte in 0..=u8::MAX {
            let text = [byte; 20];
            assert_eq!(is_number(&text), byte.is_ascii_digit(), "{byte}");
            let is_ascii = (b' '..=0x7f).contains(&byte);
            assert_eq!(is_plain(&text), is_ascii && byte != b'\\', "{byte}");
        }
    }
}
