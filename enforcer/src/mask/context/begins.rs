//! The names that a line could hold, by their first letters: most lines hold none.

/// What names begin with, so that most lines are known to hold none.
#[derive(Debug)]
pub(super) struct Begins {
    /// By a hash, three letters or digits that are a short name; of two, with any third.
    short: Hashes,
    /// The first four of a longer one.
    long: Hashes,
}

/// Bits by a hash, many times as many as there are names.
type Hashes = Box<[u64; HASH_WORDS]>;
const HASH_WORDS: usize = 512;

impl Begins {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut begins = Self { short: Box::new([0; HASH_WORDS]), long: Box::new([0; HASH_WORDS]) };
        let set = |bits: &mut Hashes, letters: u32| {
            let (word, bit) = hash(letters);
            bits[word] |= 1 << bit;
        };
        for name in names.map(str::as_bytes) {
            match *name {
                [a, b, c, d, ..] => set(&mut begins.long, u32::from_be_bytes([a, b, c, d])),
                [a, b, c] => set(&mut begins.short, u32::from_be_bytes([0, a, b, c])),
                [a, b] => (b'0'..=b'z')
                    .for_each(|third| set(&mut begins.short, u32::from_be_bytes([0, a, b, third]))),
                _ => {}
            }
        }
        begins
    }

    /// Whether a name can stand among the letters and digits of a line.
    pub(super) fn in_line(&self, line: &[u8]) -> bool {
        let has = |bits: &Hashes, letters: u32| {
            let (word, bit) = hash(letters);
            bits[word] >> bit & 1 == 1
        };
        let short = |letters: u32| has(&self.short, letters & 0x00ff_ffff);
        let mut letters = 0;
        for byte in line {
            let small = SMALL[usize::from(*byte)];
            if small != 0 {
                letters = letters << 8 | u32::from(small);
                if has(&self.long, letters) || short(letters) {
                    return true;
                }
            }
        }
        // Of a name of two that is the last.
        short(letters << 8 | u32::from(b'a'))
    }
}

/// Where the bit of some letters stands: in which word, and which of it.
fn hash(letters: u32) -> (usize, u32) {
    let hash = letters.wrapping_mul(0x9e37_79b1);
    ((hash >> 23) as usize, hash >> 17 & 63)
}

/// Letters in lower case, and digits; 0 for other bytes.
static SMALL: [u8; 256] = {
    let mut small = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = index as u8;
        small[index] = if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { 0 };
        index += 1;
    }
    small
};

#[cfg(test)]
mod tests {
    use super::super::{Contexts, WORDS};

    #[test]
    fn a_line_with_a_name_is_never_passed_over() {
        let contexts = Contexts::get();
        let vendors = contexts.vendors.iter().map(|vendor| vendor.name);
        for name in vendors.chain(WORDS.map(|(word, _)| word)) {
            let spread: String = name.chars().flat_map(|c| [c.to_ascii_uppercase(), '-']).collect();
            for line in
                [name.to_owned(), format!("my{name}"), format!("{name}4 x"), spread, format!("q {name} ")]
            {
                assert!(contexts.begins.in_line(line.as_bytes()), "{line}");
            }
        }
        let without = ["id", "created", "logger", "trace_id", "content", "obfuscation", "pub const"];
        let passed = without.iter().filter(|line| contexts.begins.in_line(line.as_bytes())).count();
        assert!(passed * 2 < without.len(), "{passed} of what names nothing");
    }
}
