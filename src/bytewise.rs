//! Whether bytes have something in them, many looked at at once.

/// Whether any byte is so. There is no way out in between, and pieces have lengths that the compiler knows, so that
/// their bytes are looked at side by side.
pub fn has_any(bytes: &[u8], is_so: impl Fn(u8) -> bool + Copy) -> bool {
    fn piece<const N: usize>(piece: &[u8; N], is_so: impl Fn(u8) -> bool) -> bool {
        piece.iter().fold(0, |any, byte| any | u8::from(is_so(*byte))) != 0
    }
    let (long, rest) = bytes.as_chunks::<32>();
    let (short, rest) = rest.as_chunks::<8>();
    let long = long.iter().fold(false, |any, bytes| any | piece(bytes, is_so));
    let short = short.iter().fold(long, |any, bytes| any | piece(bytes, is_so));
    rest.iter().fold(short, |any, byte| any | is_so(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_looked_at() {
        for length in 0..130 {
            let mut bytes = vec![b'a'; length];
            assert!(!has_any(&bytes, |byte| byte == b'x'), "{length}");
            for at in 0..length {
                bytes[at] = b'x';
                assert!(has_any(&bytes, |byte| byte == b'x'), "{at} of {length}");
                bytes[at] = b'a';
            }
        }
    }
}
