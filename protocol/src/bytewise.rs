//! What bytes are, many of them looked at at once.

/// Digits, at least one.
pub fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && !has_any(text, |byte| !byte.is_ascii_digit())
}

/// ASCII for which JSON has no escape, but for quotes, which may be in it.
pub fn is_plain(text: &[u8]) -> bool {
    !has_any(text, |byte| (byte == b'\\') | !(0x20..0x80).contains(&byte))
}

/// Whether any byte is so. Pieces have lengths that the compiler knows, so that their bytes are looked at side by
/// side; and each can be the last, or it would look at pieces side by side, byte by byte.
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
    fn every_byte_is_looked_at() {
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
    fn every_byte_is_what_it_is() {
        for byte in 0..=u8::MAX {
            let text = [byte; 20];
            assert_eq!(is_number(&text), byte.is_ascii_digit(), "{byte}");
            let is_ascii = (b' '..=0x7f).contains(&byte);
            assert_eq!(is_plain(&text), is_ascii && byte != b'\\', "{byte}");
        }
    }
}
