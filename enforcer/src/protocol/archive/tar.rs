//! Tar: a block of 512 bytes before each file.

use super::{ArchiveError, BEGIN_BYTES, Begin, Container, Unpack};

const BLOCK: usize = BEGIN_BYTES;
/// Where the checksum stands; it counts as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const NAME: usize = 100;

/// Whether the first block of a tar begins like this: the checksum tells.
pub(super) fn begins(bytes: &[u8]) -> Begin {
    match bytes.first_chunk::<BLOCK>() {
        Some(block) if is_header(block) => Begin::Is(Container::Tar),
        Some(_) => Begin::Nothing,
        // A name that ends in zeros is how no text begins.
        None => {
            let name = &bytes[..bytes.len().min(NAME)];
            let end = name.iter().position(|b| *b == 0).unwrap_or(0);
            let padded = end > 0 && name[end..].iter().all(|b| *b == 0);
            let full = bytes.get(257..262) == Some(b"ustar");
            if padded || full { Begin::More } else { Begin::Nothing }
        }
    }
}

fn is_header(block: &[u8; BLOCK]) -> bool {
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let field: u64 = block[CHECKSUM].iter().map(|b| u64::from(*b)).sum();
    let spaces = 8 * u64::from(b' ');
    octal(&block[CHECKSUM]).is_some_and(|said| said == sum - field + spaces && sum > field)
}

/// A number in octal digits, with spaces or zeros around it.
fn octal(field: &[u8]) -> Option<u64> {
    let text = str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    u64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'))
}

impl Unpack<'_> {
    pub(super) fn tar(&mut self, bytes: &[u8], depth: usize) -> Result<(), ArchiveError> {
        let mut rest = bytes;
        while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>() {
            if block.iter().all(|b| *b == 0) {
                break;
            }
            if !is_header(block) {
                return Err(ArchiveError::Unreadable("a header in the tar is damaged"));
            }
            let size = octal(&block[124..136]).and_then(|size| usize::try_from(size).ok());
            let size = size.ok_or(ArchiveError::Unreadable("a length in the tar is no octal number"))?;
            let content = behind.get(..size).ok_or(ArchiveError::Unreadable("the tar ends too early"))?;
            match block[156] {
                b'S' => return Err(ArchiveError::Unreadable("a sparse file in the tar")),
                b'x' | b'g' if has_length(content) => {
                    return Err(ArchiveError::Unreadable("a second length of a file in the tar"));
                }
                _ => self.open(content, depth + 1)?,
            }
            let padded = size.div_ceil(BLOCK) * BLOCK;
            rest = behind.get(padded..).unwrap_or_default();
        }
        if rest.iter().any(|b| *b != 0) {
            return Err(ArchiveError::Unreadable("something follows the end of the tar"));
        }
        Ok(())
    }
}

/// Whether an extended header says lengths of its own.
fn has_length(records: &[u8]) -> bool {
    [&b" size="[..], b" GNU.sparse"].iter().any(|key| memchr::memmem::find(records, key).is_some())
}
