//! Where the fields of the kernel's own structures are, from the types that it describes
//! in `/sys/kernel/btf/vmlinux`.
//!
//! A reader of our own for this one question: aya's does not show members, and the crates
//! that do are under the LGPL, or take a second where this takes milliseconds. The format
//! is that of <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;
use std::path::Path;

use thiserror::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Structures within structures are followed to this depth.
const MAX_DEPTH: u32 = 8;

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNCTION_PROTO: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const DECLARATION_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

#[derive(Debug, Error)]
pub enum BtfError {
    #[error("reading {VMLINUX} (a kernel with CONFIG_DEBUG_INFO_BTF has it)")]
    Read(#[source] std::io::Error),
    #[error("the kernel's BTF ends too early, or is of another version")]
    Malformed,
    #[error("the kernel has no {0}")]
    Missing(String),
}

type Result<T> = std::result::Result<T, BtfError>;

/// The structures of the running kernel.
pub struct Structures {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins, by its id.
    types: Vec<usize>,
    /// The ids of structures, by where their name stands.
    named: HashMap<Vec<u8>, usize>,
}

struct Member {
    name: usize,
    kind: usize,
    bits: u32,
}

impl Structures {
    pub fn of_this_kernel() -> Result<Self> {
        Self::parse(std::fs::read(Path::new(VMLINUX)).map_err(BtfError::Read)?)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let magic = bytes.get(..2).ok_or(BtfError::Malformed)?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(BtfError::Malformed);
        }
        let mut found =
            Self { bytes, strings: 0, types: vec![usize::MAX], named: HashMap::with_capacity(16 * 1024) };
        let header = found.word(4)? as usize;
        if header < HEADER {
            return Err(BtfError::Malformed);
        }
        let (types, length) = (header + found.word(8)? as usize, found.word(12)? as usize);
        found.strings = header + found.word(16)? as usize;
        if found.bytes.len() < found.strings + found.word(20)? as usize {
            return Err(BtfError::Malformed);
        }
        let mut at = types;
        while at < types + length {
            if found.kind(at)? == STRUCT {
                let name = found.text(found.word(at)? as usize)?.to_vec();
                // Of several with one name the first is that of most of the kernel.
                found.named.entry(name).or_insert(found.types.len());
            }
            found.types.push(at);
            at += found.length(at)?;
        }
        Ok(found)
    }

    /// Where a field is, in bytes from the beginning of the structure: `structure.field`,
    /// or `structure.field.field` through structures that it holds. Members without a name
    /// are looked through.
    pub fn offset(&self, path: &str) -> Result<u32> {
        let missing = || BtfError::Missing(path.to_owned());
        let mut names = path.split('.');
        let first = names.next().filter(|name| !name.is_empty()).ok_or_else(missing)?;
        let mut kind = *self.named.get(first.as_bytes()).ok_or_else(missing)?;
        let mut bits = 0;
        for name in names {
            let member = self.find(kind, name.as_bytes(), 0)?.ok_or_else(missing)?;
            bits += member.bits;
            kind = self.plain(member.kind)?;
        }
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(missing()) }
    }

    fn find(&self, kind: usize, name: &[u8], depth: u32) -> Result<Option<Member>> {
        let at = *self.types.get(kind).ok_or(BtfError::Malformed)?;
        if depth > MAX_DEPTH || !matches!(self.kind(at)?, STRUCT | UNION) {
            return Ok(None);
        }
        for index in 0..self.count(at)? {
            let member = self.member(at, index)?;
            if member.name != 0 {
                if self.text(member.name)? == name {
                    return Ok(Some(member));
                }
                continue;
            }
            if let Some(inner) = self.find(self.plain(member.kind)?, name, depth + 1)? {
                return Ok(Some(Member { bits: member.bits + inner.bits, ..inner }));
            }
        }
        Ok(None)
    }

    fn member(&self, at: usize, index: usize) -> Result<Member> {
        let at_member = at + 12 + 12 * index;
        let bits = self.word(at_member + 8)?;
        // With this flag the upper byte is the size of a bit field.
        let flagged = self.word(at + 4)? >> 31 == 1;
        Ok(Member {
            name: self.word(at_member)? as usize,
            kind: self.word(at_member + 4)? as usize,
            bits: if flagged { bits & 0x00ff_ffff } else { bits },
        })
    }

    /// The type behind names and qualifiers.
    fn plain(&self, mut kind: usize) -> Result<usize> {
        for _ in 0..MAX_DEPTH {
            let Some(&at) = self.types.get(kind).filter(|at| **at != usize::MAX) else { break };
            match self.kind(at)? {
                TYPEDEF..=CONST | RESTRICT | TYPE_TAG => kind = self.word(at + 8)? as usize,
                _ => break,
            }
        }
        Ok(kind)
    }

    fn kind(&self, at: usize) -> Result<u32> {
        Ok(self.word(at + 4)? >> 24 & 0x1f)
    }

    fn count(&self, at: usize) -> Result<usize> {
        Ok((self.word(at + 4)? & 0xffff) as usize)
    }

    /// Of one type with all that stands behind it.
    fn length(&self, at: usize) -> Result<usize> {
        let count = self.count(at)?;
        Ok(12
            + match self.kind(at)? {
                INT | VARIABLE | DECLARATION_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | SECTION | ENUM64 => 12 * count,
                ENUM | FUNCTION_PROTO => 8 * count,
                _ => 0,
            })
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(BtfError::Malformed)
    }

    fn text(&self, at: usize) -> Result<&[u8]> {
        let rest = self.bytes.get(self.strings + at..).ok_or(BtfError::Malformed)?;
        let end = memchr::memchr(0, rest).ok_or(BtfError::Malformed)?;
        Ok(&rest[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { struct { long b; }; long c; }; const named in; int f:4; }`,
    /// `struct inner { int x; int y; }`, `typedef inner named`.
    fn example() -> Vec<u8> {
        const STRINGS: &[u8] = b"\0outer\0a\0b\0c\0in\0f\0inner\0x\0y\0named\0";
        let text = |name: &str| {
            let name = [b"\0", name.as_bytes(), b"\0"].concat();
            u32::try_from(memchr::memmem::find(STRINGS, &name).unwrap() + 1).unwrap()
        };
        let mut types: Vec<u32> = Vec::new();
        let info = |kind: u32, count: u32| kind << 24 | count;
        // 1: an int, which has a word behind it.
        types.extend([0, info(INT, 0), 4, 32]);
        // 2 to 4: the members without a name, from the inside out.
        types.extend([0, info(STRUCT, 1), 8, text("b"), 1, 0]);
        types.extend([0, info(UNION, 2), 8, 0, 2, 0, text("c"), 1, 0]);
        types.extend([text("inner"), info(STRUCT, 2), 8, text("x"), 1, 0, text("y"), 1, 32]);
        // 5 and 6: names and qualifiers.
        types.extend([text("named"), info(TYPEDEF, 0), 4]);
        types.extend([0, info(CONST, 0), 5]);
        // 7: with bit fields.
        let members = [text("a"), 1, 0, 0, 3, 64, text("in"), 6, 128, text("f"), 1, 4 << 24 | 196];
        types.extend([text("outer"), info(STRUCT, 4) | 1 << 31, 28]);
        types.extend(members);
        let length = u32::try_from(types.len() * 4).unwrap();
        let strings = u32::try_from(STRINGS.len()).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, length, length, strings].into_iter().chain(types) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(STRINGS);
        bytes
    }

    #[test]
    fn fields_are_found_through_members_without_a_name_and_structures_within() {
        let structures = Structures::parse(example()).unwrap();
        for (path, offset) in
            [("outer.a", 0), ("outer.b", 8), ("outer.c", 8), ("outer.in", 16), ("outer.in.y", 20)]
        {
            assert_eq!(structures.offset(path).unwrap(), offset, "{path}");
        }
        for path in ["outer.x", "outer.f", "other.a", "outer.a.b", "named.x", ""] {
            assert!(matches!(structures.offset(path), Err(BtfError::Missing(_))), "{path}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = example();
        for length in 0..whole.len() {
            let Ok(structures) = Structures::parse(whole[..length].to_vec()) else { continue };
            assert!(structures.offset("outer.in.y").is_err(), "{length}");
        }
    }

    #[test]
    fn this_kernel_is_read() {
        let structures = Structures::of_this_kernel().unwrap();
        assert_eq!(structures.offset("sock.__sk_common.skc_family").unwrap(), 16);
    }
}
