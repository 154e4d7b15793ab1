use std::io::Write as _;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = crate::protocol::http::coding::Encoder::new(&[Coding::Zstd]);
    let first = encoder.push(Bytes::copy_from_slice(bytes), false).unwrap();
    [first, encoder.finish().unwrap()].concat()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        out.extend(tar_file(name, content, b'0'));
    }
    out.extend([0; 1024]);
    out
}

fn tar_file(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = [&block[..], content].concat();
    out.resize(out.len().div_ceil(512) * 512, 0);
    out
}

/// How a file stands in a zip.
#[derive(Clone, Copy)]
struct Way {
    method: u16,
    flags: u16,
    /// Its lengths stand behind it.
    streamed: bool,
}

const DEFLATE: Way = Way { method: 8, flags: 0, streamed: false };
const STORE: Way = Way { method: 0, flags: 0, streamed: false };

fn zip(files: &[(&str, &[u8], Way)]) -> Vec<u8> {
    let (mut out, mut entries) = (Vec::new(), Vec::new());
    for (name, content, way) in files {
        let at = u32::try_from(out.len()).unwrap();
        let packed = match way.method {
            8 => deflate(content),
            93 => zstd(content),
            _ => content.to_vec(),
        };
        let lengths = [0, u32::try_from(packed.len()).unwrap(), u32::try_from(content.len()).unwrap()];
        let lengths: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
        let flags = way.flags | if way.streamed { 8 } else { 0 };
        let said = if way.streamed { vec![0; 12] } else { lengths.clone() };
        let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();
        let common = |said: &[u8]| {
            let mut head = vec![20, 0];
            head.extend(flags.to_le_bytes());
            head.extend(way.method.to_le_bytes());
            head.extend([0; 4]);
            head.extend(said);
            head.extend(name_len);
            head.extend([0, 0]);
            head
        };
        out.extend(b"PK\x03\x04");
        out.extend(common(&said));
        out.extend(name.as_bytes());
        out.extend(&packed);
        if way.streamed {
            out.extend(b"PK\x07\x08");
            out.extend(&lengths);
        }
        entries.extend(b"PK\x01\x02\x14\x00");
        entries.extend(common(&lengths));
        entries.extend([0; 10]);
        entries.extend(at.to_le_bytes());
        entries.extend(name.as_bytes());
    }
    let start = u32::try_from(out.len()).unwrap();
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let size = u32::try_from(entries.len()).unwrap();
    out.extend(&entries);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend(size.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// Whether the needle was seen, if the archive was read to its end.
fn sees(bytes: &[u8]) -> Result<bool, ArchiveError> {
    let mut seen = false;
    unpack(bytes, &mut |part| seen |= memchr::memmem::find(part, NEEDLE).is_some())?;
    Ok(seen)
}

const NEEDLE: &[u8] = b"what is looked for";

fn unreadable(bytes: &[u8]) -> bool {
    matches!(sees(bytes), Err(ArchiveError::Unreadable(_)))
}

#[test]
fn everything_that_can_be_read_is_seen() {
    let text = [b"before ".repeat(9), NEEDLE.to_vec()].concat();
    let streamed = Way { streamed: true, ..DEFLATE };
    let zstd_file = Way { method: 93, ..STORE };
    let archives = [
        gzip(&text),
        [gzip(b"first"), gzip(&text)].concat(),
        zlib(&text),
        zstd(&text),
        tar(&[("a", b"x"), ("b", &text)]),
        gzip(&tar(&[("a", b"x"), ("b", &text)])),
        zip(&[("a", b"x", DEFLATE), ("b", &text, DEFLATE)]),
        zip(&[("a", &text, STORE)]),
        zip(&[("a", &text, streamed), ("b", b"y", streamed)]),
        zip(&[("a", &text, zstd_file)]),
        zip(&[("what is looked for", b"", STORE)]),
        zip(&[("a.zip", &zip(&[("b.tar.gz", &gzip(&tar(&[("c", &text)])), DEFLATE)]), STORE)]),
        tar(&[("a.gz", &gzip(&text))]),
    ];
    for archive in &archives {
        assert!(matches!(begin(archive, false), Begin::Is(_)));
        assert_eq!(sees(archive), Ok(true));
        // Of a tar, the name alone tells nothing.
        let first = if begin(archive, false) == Begin::Is(Container::Tar) { 5 } else { 1 };
        for cut in first..archive.len().min(520) {
            let found = begin(&archive[..cut], false);
            assert_ne!(found, Begin::Nothing, "{:?} at {cut}", begin(archive, false));
        }
    }
    assert_eq!(sees(b"text"), Ok(false));
    assert_eq!(sees(&zip(&[])), Ok(false));
    assert_eq!(sees(b"\x78\x9cby chance"), Ok(false));
}

#[test]
fn what_is_no_archive_waits_for_nothing() {
    for text in [
        &b"{\"a\": 1}"[..],
        b"a",
        b"Bad",
        b"BZh91B",
        b"P",
        b"PX",
        b"x=1",
        b"\0\0\0\0\x05",
        b"--b\r\n",
        b"%PDF",
    ] {
        let found = begin(text, false);
        let waits = matches!(text, b"P");
        assert_eq!(found, if waits { Begin::More } else { Begin::Nothing }, "{}", text.escape_ascii());
        assert_eq!(begin(text, true), Begin::Nothing);
    }
    assert_eq!(begin(b"", false), Begin::More);
}

#[test]
fn what_cannot_be_read_to_its_end_is_an_error() {
    let bzip2 = [&b"BZh9"[..], &BZIP2_BLOCK, b"..."].concat();
    assert!(unreadable(&bzip2) && unreadable(b"\xfd7zXZ\0...") && unreadable(b"7z\xbc\xaf\x27\x1c"));
    assert!(unreadable(b"Rar!\x1a\x07\x01\0"));
    let encrypted = Way { flags: 1, ..STORE };
    assert!(unreadable(&zip(&[("a", b"x", encrypted)])));
    let unknown = Way { method: 14, ..STORE };
    assert!(unreadable(&zip(&[("a", b"x", unknown)])));
    assert!(unreadable(&zip(&[("a", b"x", Way { streamed: true, ..STORE })])));
    let whole = zip(&[("a", b"some text", DEFLATE), ("b", b"x", STORE)]);
    let packed = gzip(&b"some text".repeat(100));
    let files = tar(&[("a", &[1; 700])]);
    assert!((1..whole.len()).filter(|cut| *cut > 4).all(|cut| unreadable(&whole[..cut])));
    assert!((4..packed.len()).all(|cut| unreadable(&packed[..cut])));
    assert!(unreadable(&files[..1024]) && unreadable(&[&files[..], b"x"].concat()));
    assert!(unreadable(&[&packed[..], b"x"].concat()));
    assert!(unreadable(&[&whole[..], b"x"].concat()));
    let mut damaged = files.clone();
    damaged.splice(1536..1536, tar_file("b", b"", b'0').into_iter().map(|b| b ^ 1));
    assert!(unreadable(&damaged));
    let second = [tar_file("p", b"12 size=9999\n", b'x'), tar_file("b", b"x", b'0')].concat();
    assert!(unreadable(&second) && unreadable(&tar_file("s", b"", b'S')));
}

#[test]
fn a_directory_that_names_another_place_is_an_error() {
    // A stored file that holds a zip behind a byte: a reader that believes the directory
    // unpacks what nobody looked into.
    let hidden = zip(&[("b", NEEDLE, DEFLATE)]);
    let mut outer = zip(&[("a", &[b"x", &hidden[..]].concat(), STORE)]);
    let entry = memchr::memmem::rfind(&outer, ENTRY_MAGIC).unwrap();
    assert_eq!(sees(&outer), Ok(false), "stored behind a byte, it is no archive");
    outer[entry + 42..entry + 46].copy_from_slice(&32_u32.to_le_bytes());
    assert!(unreadable(&outer));
}

const ENTRY_MAGIC: &[u8] = b"PK\x01\x02";

#[test]
fn each_limit_holds_on_both_sides() {
    let most = vec![0; UNPACKED_MAX_BYTES];
    let over = vec![0; UNPACKED_MAX_BYTES + 1];
    for pack in [gzip, zstd, |bytes: &[u8]| zip(&[("a", bytes, DEFLATE)])] {
        assert_eq!(sees(&pack(&most)), Ok(false));
        assert_eq!(sees(&pack(&over)), Err(TOO_LARGE));
    }
    let half = vec![0; UNPACKED_MAX_BYTES / 2];
    assert_eq!(sees(&zip(&[("a", &half, DEFLATE), ("b", &half, DEFLATE)])), Ok(false));
    assert_eq!(
        sees(&zip(&[("a", &half, DEFLATE), ("b", &half, DEFLATE), ("c", b"x", DEFLATE)])),
        Err(TOO_LARGE)
    );

    let nested = |depth: usize| (0..depth).fold(NEEDLE.to_vec(), |inner, _| gzip(&inner));
    assert_eq!(sees(&nested(DEPTH_MAX)), Ok(true));
    assert!(matches!(sees(&nested(DEPTH_MAX + 1)), Err(ArchiveError::Limit(_))));

    let inner = gzip(b"x");
    let wide = |count: usize| tar(&vec![("a.gz", inner.as_slice()); count]);
    assert_eq!(sees(&wide(ARCHIVES_MAX - 1)), Ok(false));
    assert!(matches!(sees(&wide(ARCHIVES_MAX)), Err(ArchiveError::Limit(_))));
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    // 32 MiB of zeros in gzip in gzip, sixteen times in a zip: half a gigabyte.
    let layer = gzip(&gzip(&vec![0; 32 * 1024 * 1024]));
    let files = vec![("layer", layer.as_slice(), STORE); 16];
    assert_eq!(sees(&zip(&files)), Err(TOO_LARGE));
}
