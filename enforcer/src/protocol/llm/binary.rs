//! Strings that carry no text: images, sound and documents in base64.

/// Shorter strings are text.
pub const BINARY_MIN_BYTES: usize = 64;
/// The beginning of a string in which it has to show what it is.
pub const LOOK_BYTES: usize = 160;

/// How the base64 of files begins that hold no text to read: PNG, JPEG, GIF, RIFF (WebP, WAV),
/// PDF, MP3, Ogg, FLAC, TIFF, Matroska.
const BEGINNINGS: &[&str] = &[
    "iVBORw0KGgo",
    "/9j/",
    "R0lGODdh",
    "R0lGODlh",
    "UklGR",
    "JVBERi0",
    "SUQz",
    "//uQ",
    "//vQ",
    "T2dnUw",
    "ZkxhQw",
    "SUkqA",
    "TU0AK",
    "GkXfo",
];

/// Where base64 of such a file begins in a string that begins like this. A type that is only
/// said is not believed: the file has to begin like one.
pub fn begins(look: &[u8]) -> Option<usize> {
    let at = if look.starts_with(b"data:") {
        let mark = b";base64,";
        memchr::memmem::find(look, mark)? + mark.len()
    } else {
        0
    };
    let rest = &look[at..];
    BEGINNINGS.iter().any(|begin| rest.starts_with(begin.as_bytes())).then_some(at)
}

/// Whether a byte can stand in base64, of either alphabet.
pub fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// Whether a string is nothing but such a file.
pub fn is_binary(raw: &[u8]) -> bool {
    raw.len() >= BINARY_MIN_BYTES
        && begins(&raw[..raw.len().min(LOOK_BYTES)])
            .is_some_and(|at| raw[at..].iter().all(|&byte| is_digit(byte)))
}

/// Whether a string is nothing but base64.
pub fn is_coded(raw: &[u8]) -> bool {
    raw.len() >= BINARY_MIN_BYTES && raw.iter().all(|&byte| is_digit(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_how_it_begins_and_not_by_what_is_said() {
        let png = format!("iVBORw0KGgo{}", "A".repeat(80));
        assert!(is_binary(png.as_bytes()));
        assert!(is_binary(format!("data:image/png;base64,{png}").as_bytes()));
        let text = format!("data:image/png;base64,{}", "Z2hwX3NlY3JldA".repeat(8));
        assert!(!is_binary(text.as_bytes()));
        assert!(!is_binary(format!("{png} and text").as_bytes()));
        let shortest = "/9j/".to_owned() + &"A".repeat(BINARY_MIN_BYTES - 4);
        assert!(is_binary(shortest.as_bytes()) && !is_binary(&shortest.as_bytes()[1..]));
        assert!(!is_binary(&shortest.as_bytes()[..BINARY_MIN_BYTES - 1]));
    }
}
