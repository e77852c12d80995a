//! Unique ids.

use std::fs::File;
use std::io::{self, Read as _};

/// Random bits of the operating system, which are unpredictable and differ between processes.
///
/// # Errors
/// The system's random number generator failed.
pub fn random() -> io::Result<u128> {
    let mut bits = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bits))
        .map_err(|error| io::Error::new(error.kind(), format!("failed to read /dev/urandom: {error}")))?;
    Ok(u128::from_ne_bytes(bits))
}

/// A UUID of version 4 made of random bits.
pub fn uuid(random: u128) -> String {
    let bits = random & !(0xF << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_has_the_form_of_version_4() {
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    }
}
