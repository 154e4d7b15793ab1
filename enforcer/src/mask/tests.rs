use std::sync::OnceLock;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::secret::SecretBytes;

fn join(pieces: &[&str]) -> String {
    pieces.concat()
}

fn all() -> Masker {
    static ALL: OnceLock<Masker> = OnceLock::new();
    let make = || {
        let exact = [
            ExactValue::new("DEPLOY_KEY", &SecretBytes::from("obviously-fake-value/1")).unwrap(),
            ExactValue::new("REPEATED", &SecretBytes::from("abababab")).unwrap(),
        ];
        Masker::new(&Selection::All, &exact).unwrap()
    };
    ALL.get_or_init(make).clone()
}

fn random_text(seed: u64, len: usize) -> Vec<u8> {
    const PARTS: &[&str] = &[
        "a",
        "Z",
        "9",
        "@",
        ".",
        "-",
        "_",
        "\\n",
        "%3D",
        "\\u003d",
        "eyJ",
        "sk-",
        "AKIA",
        ":",
        "//",
        " ",
        "\n",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "abab",
        "GB82",
        "4111",
        "x@y.org",
        "=",
        "+",
        "\"",
    ];
    let mut state = seed;
    let mut text = Vec::new();
    while text.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = usize::try_from(state >> 33).unwrap() % PARTS.len();
        text.extend_from_slice(PARTS[part].as_bytes());
    }
    text
}

#[test]
fn noise_is_masked_alike_in_all_chunks() {
    let masker = all();
    for seed in 0..60 {
        let text = random_text(seed, 600);
        let (whole, findings) = masker.mask(&text);
        for size in [1, 2, 3, 5, 17, 64, 100] {
            let cuts = (0..text.len()).step_by(size);
            let (out, found) = in_chunks(&masker, &text, cuts);
            assert_eq!(String::from_utf8_lossy(&out), whole.to_text(), "{seed} {size}");
            assert_eq!(found, findings);
        }
    }
}

fn in_chunks(masker: &Masker, text: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<u8>, Findings) {
    let mut stream = masker.stream_at(Place::Other);
    let mut out = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        let chunk = Bytes::copy_from_slice(&text[from..cut]);
        let pushed = stream.push(chunk).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)));
        out.extend_from_slice(pushed.as_bytes());
        from = cut;
    }
    out.extend_from_slice(stream.finish().unwrap().as_bytes());
    (out, stream.findings().clone())
}

#[test]
fn examples_are_masked_and_counter_examples_are_not() {
    let builtin = Masker::builtin_all().unwrap();
    let mut failed = Vec::new();
    for detector in detectors::all() {
        let only = Masker::new(&Selection::parse([&detector.entity]).unwrap(), &[]).unwrap();
        assert!(!detector.examples.is_empty(), "{}", detector.entity);
        for example in detector.examples {
            let text = format!("x={}\" end", join(example));
            let (masked, findings) = only.mask(text.as_bytes());
            let placeholder = format!("[MASKED:{}]", detector.entity);
            let text_out = masked.to_text();
            let holds =
                text_out.contains(&placeholder) && text_out.ends_with("\" end") && findings.total() == 1;
            let named = [SET_THREATS, SET_NATIONAL, SET_ACCOUNTS].contains(&&*detector.set);
            if !holds || (!named && builtin.mask(text.as_bytes()).1.is_empty()) {
                failed.push(format!("{}: {text} became {text_out}", detector.rule));
            }
        }
        for counter in detector.counter {
            let (masked, findings) = only.mask(join(counter).as_bytes());
            if !findings.is_empty() {
                failed.push(format!("{}: {}", detector.rule, masked.to_text()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_cut_and_every_chunk_of_one_byte_gives_the_same() {
    let masker = all();
    for detector in detectors::all() {
        for example in detector.examples {
            let text = format!("before {} after", join(example)).into_bytes();
            let (whole, findings) = masker.mask(&text);
            for cut in 0..=text.len() {
                let cutted = in_chunks(&masker, &text, [cut]);
                assert_eq!((&cutted.0[..], &cutted.1), (whole.as_bytes(), &findings), "{cut}");
            }
            let single = in_chunks(&masker, &text, 0..text.len());
            assert_eq!(single.0, whole.as_bytes(), "{}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn borders_of_buffers_do_not_matter() {
    let masker = all();
    let token = join(&["ghp_", "a1B2c3D4e5F6g7H8i9J0", "a1B2c3D4e5F6g7H8"]);
    for border in [16 * 1024, 64 * 1024] {
        for before in border - token.len() - 1..=border + 1 {
            let text = [".".repeat(before).as_bytes(), token.as_bytes(), b" end"].concat();
            let (out, findings) = in_chunks(&masker, &text, [border]);
            assert_eq!(findings.total(), 1);
            assert!(out.ends_with(b".[MASKED:GITHUB_TOKEN] end"), "{before}");
        }
    }
}

#[test]
fn overlapping_matches_leak_no_tail() {
    let text = join(&["AKIA", "AKIA", "ABCDEFGHIJKLMNOP", " x"]);
    assert_eq!(all().mask(text.as_bytes()).0.to_text(), "[MASKED:AWS_ACCESS_KEY_ID] x");
    let (masked, findings) = all().mask(b"_abababababab_");
    assert_eq!(masked.to_text(), "_[MASKED:REPEATED]_");
    assert_eq!(findings.total(), 1);
}

#[test]
fn clean_text_goes_out_at_once_and_uncopied() {
    let mut stream = Masker::builtin_all().unwrap().stream();
    for text in ["nothing to see here. ", "data: {\"a\": 1}\n\n"] {
        let chunk = Bytes::from(text.as_bytes().to_vec());
        let out = stream.push(chunk.clone()).unwrap().into_bytes();
        assert_eq!((out.as_ptr(), out.len()), (chunk.as_ptr(), chunk.len()));
        assert_eq!(stream.held(), 0);
    }
}

#[test]
fn what_begins_a_match_but_for_its_case_does_not_wait() {
    let held = |text: &'static str| {
        let mut stream = Masker::new(&Selection::parse([SET_SECRETS]).unwrap(), &[]).unwrap().stream();
        stream.push(Bytes::from_static(text.as_bytes())).unwrap();
        stream.held()
    };
    // `ghp_`, `AKIA`. In the others only the last letter begins something.
    assert_eq!(["gh", "ghp", "AK", "AKI"].map(held), [2, 3, 2, 3]);
    assert_eq!(["Gh", "Ghp", "aKI", "Th"].map(held), [1; 4]);
    // A word waits for its end only where it could be the value of what is named before it.
    assert_eq!(["and I am wondering", "github token: wondering"].map(held), [1, 9]);
    // Of a value that is known every case of its hex is.
    let known = ExactValue::new("KEY", &SecretBytes::from("\u{ab}\u{cd}-Qx-known")).unwrap();
    let masker = Masker::new(&Selection::parse([SET_EXACT]).unwrap(), &[known]).unwrap();
    for text in ["c", "C", "c2", "C2", "c2A", "C2a", "C2aB"] {
        let mut stream = masker.stream();
        stream.push(Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!(stream.held(), text.len(), "{text}");
    }
}

#[test]
fn a_long_chain_of_matches_is_not_held_back() {
    let secrets = Selection::parse([SET_SECRETS]).unwrap();
    let mut stream = Masker::new(&secrets, &[]).unwrap().stream();
    let mut out = Vec::new();
    for _ in 0..10_000 {
        out.extend_from_slice(stream.push(Bytes::from_static(b"AKIA")).unwrap().as_bytes());
        assert!(stream.held() <= 100, "{}", stream.held());
    }
    out.extend_from_slice(stream.finish().unwrap().as_bytes());
    assert_eq!(String::from_utf8(out).unwrap(), "[MASKED:AWS_ACCESS_KEY_ID]");
}

#[test]
fn a_private_key_is_swallowed_without_waiting_and_json_stays_json() {
    let head = join(&["{\"k\": \"-----BEGIN ", "PRIVATE KEY-----\\n"]);
    let mut stream = all().stream();
    let mut out = stream.push(head.into()).unwrap().as_bytes().to_vec();
    for _ in 0..100 {
        out.extend_from_slice(stream.push(Bytes::from_static(b"MIIEabcd+/\\n")).unwrap().as_bytes());
        assert!(stream.held() <= 16, "{}", stream.held());
    }
    out.extend_from_slice(stream.push(Bytes::from_static(b"\\\"\"}")).unwrap().as_bytes());
    out.extend_from_slice(stream.finish().unwrap().as_bytes());
    assert_eq!(String::from_utf8(out).unwrap(), "{\"k\": \"[MASKED:PRIVATE_KEY]\\\"\"}");
}

#[test]
fn beginnings_in_a_private_key_open_nothing() {
    let begin = join(&["-----BEGIN ", "PRIVATE KEY-----"]);
    let text = begin.repeat(60_000 / begin.len());
    for size in [1000, text.len()] {
        let (out, findings) = in_chunks(&all(), text.as_bytes(), (0..text.len()).step_by(size));
        assert_eq!((String::from_utf8_lossy(&out).as_ref(), findings.total()), ("[MASKED:PRIVATE_KEY]", 1));
    }
    // The last five of nine dashes are those of the end, and the first five those of a beginning.
    let text = join(&[&begin, &begin, "----END PRIVATE", " KEY----- and more"]);
    let (whole, _) = all().mask(text.as_bytes());
    assert_eq!(whole.to_text(), "[MASKED:PRIVATE_KEY] and more");
    for size in 1..text.len() {
        let (out, _) = in_chunks(&all(), text.as_bytes(), (0..text.len()).step_by(size));
        assert_eq!(out, whole.as_bytes(), "{size}");
    }
}

#[test]
fn a_private_key_without_an_end_is_an_error_at_the_limit() {
    let head = join(&["-----BEGIN ", "PRIVATE KEY-----"]);
    let most = usize::try_from(SWALLOW_MAX_BYTES).unwrap() - head.len();
    let mut stream = all().stream();
    stream.push(head.clone().into()).unwrap();
    stream.push(vec![b'A'; most].into()).unwrap();
    let error = stream.push(Bytes::from_static(b"AA")).unwrap_err();
    assert!(matches!(error, MaskError::NoEnd { .. }));
    assert!(stream.push(Bytes::from_static(b" ")).is_err() && stream.finish().is_err());
    let (masked, _) = all().mask(&[head.into_bytes(), vec![b'A'; most + 1]].concat());
    assert_eq!(masked.to_text(), "[MASKED:UNMASKABLE]");
}

#[test]
fn too_many_candidates_end_the_stream() {
    assert!(all().stream().push("eyJ".repeat(200).into()).is_ok());
    let exact = ExactValue::new("A", &SecretBytes::new(vec![b'a'; OPEN_MAX + 100])).unwrap();
    let masker = Masker::new(&Selection::All, &[exact]).unwrap();
    let error = masker.stream().push(vec![b'a'; OPEN_MAX + 50].into()).unwrap_err();
    assert!(matches!(error, MaskError::TooManyOpen { .. }));
}

#[test]
fn thousands_of_values_that_begin_alike_wait_as_one() {
    let value = |n: usize| format!("deploy-token-of-the-host-{n:04}");
    let exact: Vec<ExactValue> =
        (0..1000).map(|n| ExactValue::new("T", &SecretBytes::from(&value(n)[..])).unwrap()).collect();
    let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &exact).unwrap();
    let text = format!("<{}> <{}> <{}x>", value(7), value(999), &value(1)[..27]);
    let (out, findings) = in_chunks(&masker, text.as_bytes(), 0..text.len());
    let expected = format!("<[MASKED:T]> <[MASKED:T]> <{}x>", &value(1)[..27]);
    assert_eq!((String::from_utf8_lossy(&out).as_ref(), findings.total()), (&expected[..], 2));
}

#[test]
fn exact_values_are_found_in_fixed_codings() {
    use base64::Engine as _;
    let value = "obviously-fake-value/1";
    let masker = all();
    for before in 0..3 {
        let text = base64::engine::general_purpose::STANDARD
            .encode(format!("{}{value} and more", "x".repeat(before)));
        let masked = masker.mask(text.as_bytes()).0;
        let decoded = base64::engine::general_purpose::STANDARD.decode(masked.as_bytes()).unwrap();
        let shown = String::from_utf8_lossy(&decoded);
        assert!(shown.contains("[MASKED:DEPLOY_KEY]"), "{shown}");
        assert!(shown.starts_with(&"x".repeat(before)) && shown.ends_with("nd more"), "{shown}");
    }
    let hex = |text: &str| -> String { text.bytes().map(|b| format!("{b:02x}")).collect() };
    for form in [hex(value).to_uppercase(), hex(value)] {
        let masked = masker.mask(format!("<{form}>").as_bytes()).0;
        assert_eq!(masked.to_text(), format!("<{}>", hex("[MASKED:DEPLOY_KEY]")));
    }
    let percent: String = value.bytes().map(|b| format!("%{b:02X}")).collect();
    let json = value.replace('/', "\\/");
    for form in [percent, json, value.replace('/', "%2F")] {
        let text = format!("<{form}>");
        assert_eq!(masker.mask(text.as_bytes()).0.to_text(), "<[MASKED:DEPLOY_KEY]>");
    }
}

#[test]
fn digits_of_both_alphabets_in_one_run_hide_nothing() {
    use base64::Engine as _;
    // Its digits are `+/` over and over.
    let value: Vec<u8> = [0xfb, 0xff, 0xbf].into_iter().cycle().take(24).collect();
    let exact = ExactValue::new("BINARY", &SecretBytes::new(value.clone())).unwrap();
    let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &[exact]).unwrap();
    let engine = base64::engine::general_purpose::STANDARD;
    let pure = engine.encode([b"text before it ", &value[..]].concat());
    let mixed = pure.replacen('+', "-", 3).replacen('/', "_", 2);
    assert!(mixed.contains('+') && mixed.contains('_'));
    for text in [pure, mixed] {
        let (masked, findings) = masker.mask(format!("<{text}>").as_bytes());
        assert_eq!(findings.total(), 1, "{text} became {}", masked.to_text());
    }
}

#[test]
fn much_that_is_coded_is_not_much_that_is_open() {
    use base64::Engine as _;
    let code = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    // One long run in which text could begin behind every slash, and many short ones.
    let long = code(&"привет, мир; ?????? это текст ".repeat(200));
    let short: String =
        (0..300).map(|i| format!("\"{}\", ", code(&format!("some text, number {i}")))).collect();
    assert!(long.matches('/').count() > 2 * LEVELS_MAX);
    for text in [format!("<{long}>"), format!("[{short}]")] {
        let mut stream = all().stream();
        let mut out = stream.push(text.clone().into()).unwrap().as_bytes().to_vec();
        out.extend_from_slice(stream.finish().unwrap().as_bytes());
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn escapes_in_one_another_are_undone_up_to_a_limit_and_end_the_stream_behind_it() {
    let nested = |times: usize| {
        (0..times).fold("obviously-fake-value/1".to_owned(), |text, time| {
            let coded = |c: char| if time == 0 { format!("%{:02X}", u32::from(c)) } else { c.to_string() };
            if time == 0 { text.chars().map(coded).collect() } else { text.replace('%', "%25") }
        })
    };
    let most = usize::from(DEPTH_MAX) + 1;
    for times in 1..=most {
        let (masked, _) = all().mask(format!("<{}>", nested(times)).as_bytes());
        assert_eq!(masked.to_text(), "<[MASKED:DEPLOY_KEY]>", "{times} times");
    }
    let error = all().stream().push(format!("<{}>", nested(most + 1)).into()).unwrap_err();
    assert!(matches!(error, MaskError::TooDeep { limit: DEPTH_MAX }), "{error}");
}

#[test]
fn recorded_headers_show_no_credential() {
    let masker = Masker::new(&Selection::None, &[]).unwrap();
    let (_, value, findings) = masker.recorded_header("Authorization", b"bearer abc");
    assert_eq!(value.as_str(), "Bearer [MASKED:AUTHORIZATION]");
    assert_eq!(findings.total(), 1);
    assert_eq!(masker.recorded_header("cookie", b"a=b").1.as_str(), "[MASKED:COOKIE]");
    assert_eq!(masker.recorded_header("accept", b"*/*").1.as_str(), "*/*");
}

#[test]
fn what_begins_inside_of_an_escape_that_gives_nothing_goes_out_with_no_letter() {
    // A backslash and the first letter of the key are read as an escape.
    let example = detectors::all().find(|d| d.rule == "razorpay-key").map(|d| join(d.examples[0])).unwrap();
    let text = format!("\n\\{example} and more");
    let whole = all().mask(text.as_bytes()).0.to_text().into_owned();
    assert!(whole.contains("\\[MASKED:RAZORPAY_KEY]"), "{whole}");
    for place in 0..text.len() {
        let (out, _) = in_chunks(&all(), text.as_bytes(), vec![place]);
        assert_eq!(String::from_utf8_lossy(&out), whole, "{place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_chunking_equals_the_whole(
        parts in proptest::collection::vec((0..200_usize, 0..12_usize, "[ -~\\n]{0,12}"), 0..8),
        cuts in proptest::collection::vec(0.0..1.0_f64, 0..30),
    ) {
        let examples: Vec<String> =
            detectors::all().flat_map(|d| d.examples.iter().map(|e| join(e))).collect();
        let mut text = Vec::new();
        for (which, lost, between) in &parts {
            let example = &examples[which % examples.len()];
            text.extend_from_slice(&example.as_bytes()[..example.len().saturating_sub(*lost)]);
            text.extend_from_slice(between.as_bytes());
            if which % 3 == 0 { text.extend_from_slice(b"A[AA a%aabababab"); }
        }
        let mut places: Vec<usize> = cuts.iter().map(|c| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a test's place in a short text")]
            let place = (c * text.len() as f64) as usize;
            place
        }).collect();
        places.sort_unstable();
        let masker = all();
        let (whole, findings) = masker.mask(&text);
        let (out, found) = in_chunks(&masker, &text, places);
        prop_assert_eq!(String::from_utf8_lossy(&out), whole.to_text());
        prop_assert_eq!(found, findings);
    }
}

/// What comes out in two pieces, for every cut, and byte by byte.
fn wherever_it_is_cut(value: &[u8], text: &[u8], expected: &str) {
    let exact = ExactValue::new("KNOWN", &SecretBytes::new(value.to_vec())).unwrap();
    let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &[exact]).unwrap();
    for at in 0..=text.len() {
        let out = in_chunks(&masker, text, vec![at]).0;
        assert_eq!(String::from_utf8_lossy(&out), expected, "{} cut at {at}", text.escape_ascii());
    }
    let out = in_chunks(&masker, text, 0..text.len()).0;
    assert_eq!(String::from_utf8_lossy(&out), expected, "{} byte by byte", text.escape_ascii());
}

#[test]
fn what_begins_in_an_escape_that_gives_nothing_is_masked_from_its_beginning() {
    wherever_it_is_cut(b"rabcdefgh", b"C:\\rabcdefgh\"", "C:\\[MASKED:KNOWN]\"");
    wherever_it_is_cut(b"rabcdefgh", b"\\rabcdefgh", "\\[MASKED:KNOWN]");
    wherever_it_is_cut(b"00abcdefgh", b"x%00abcdefgh", "x%[MASKED:KNOWN]");
    wherever_it_is_cut(b"*]abcdefgh", b"<\x1b*]abcdefgh>", "<\x1b[MASKED:KNOWN]>");
}

#[test]
fn what_begins_in_an_escape_goes_on_in_layers_that_are_undone_behind_it() {
    for (value, before) in [
        ("3D\"MN\\GEu", "="),
        ("3D125t[ve0FmC\"$m", "k ="),
        ("41a\"bcdefgh", "%"),
        ("x41a\"bcdefgh\"i", "a \\"),
    ] {
        let mut coded = value.to_owned();
        for _ in 0..4 {
            let text = format!("{before}{coded}\"}}");
            wherever_it_is_cut(value.as_bytes(), text.as_bytes(), &format!("{before}[MASKED:KNOWN]\"}}"));
            let other = format!("{before}{}\"}}", coded.replace(value.chars().last().unwrap(), "~"));
            wherever_it_is_cut(value.as_bytes(), other.as_bytes(), &other);
            coded = coded.replace('\\', "\\\\").replace('"', "\\\"");
        }
    }
}

#[test]
fn what_nobody_sees_in_a_value_hides_it_in_no_coding_of_its_bytes() {
    for value in
        ["a\x1b\r\\aaaa", "a\x1b[\0aaaa", "ab\\\0x41cdef", "ab%\r41cdefg", "a\0\r\x1b]bcdefgh\0\x07i"]
    {
        let each = |form: fn(u8) -> String| value.bytes().map(form).collect::<String>();
        let percent = each(|b| format!("%{b:02X}"));
        let texts = [
            percent.replace('%', "%25"),
            percent,
            each(|b| format!("\\x{b:02x}")),
            each(|b| format!("\\{b:03o}")),
            each(|b| format!("\\u{b:04x}")),
            each(|b| format!("&#{b};")),
        ];
        for text in texts {
            wherever_it_is_cut(value.as_bytes(), format!("<{text}>").as_bytes(), "<[MASKED:KNOWN]>");
        }
    }
}

/// What is quoted-printable makes soft breaks of such line ends, also of those that are none.
#[test]
fn a_value_with_padding_at_the_end_of_a_line_is_found_behind_quoted_printable() {
    let key = "MIGkAgEBBDCkeyofnobody==\n-----END EC PRIVATE KEY-----";
    for before in ["", "a =3D b ", "<a href=3D\"x\">", "=41=42 ", "\\u003d3D \\u003d41=42 "] {
        for (body, behind) in
            [(key.to_owned(), "!"), (key.replace('\n', "\r\n"), " "), (key.replace('\n', "\\n"), "\"")]
        {
            let text = format!("{before}{body}{behind}");
            wherever_it_is_cut(key.as_bytes(), text.as_bytes(), &format!("{before}[MASKED:KNOWN]{behind}"));
        }
    }
    // Its own quoted-printable is undone in one layer, and the line's end in the next.
    let value = "k=3D \\=3D=41 =\n1%3D \"end";
    for text in
        [value.to_owned(), serde_json::to_string(value).unwrap()[1..].trim_end_matches('"').to_owned()]
    {
        wherever_it_is_cut(value.as_bytes(), format!("<{text}>").as_bytes(), "<[MASKED:KNOWN]>");
    }
}

/// What one reader takes for an escape is a value for another.
#[test]
fn a_value_inside_of_an_escape_or_behind_quoted_printable_is_found_there() {
    for (value, text, expected) in [
        ("=41bcdefgh", "id=3D=41bcdefgh ", "id=3D[MASKED:KNOWN] "),
        ("D=41bcdefgh", "id=3D=41bcdefgh ", "id=3[MASKED:KNOWN] "),
        ("3D=41bcdefgh", "id=3D=41bcdefgh ", "id=[MASKED:KNOWN] "),
        ("=41bcdefgh", "a=20=41bcdefgh ", "a=20[MASKED:KNOWN] "),
        // What is left of the escape goes with it.
        ("12345678", "<\x1b[12345678m>", "<\x1b[[MASKED:KNOWN]>"),
        ("12345678m", "<\x1b[12345678m>", "<\x1b[[MASKED:KNOWN]>"),
        ("1234567890123456", "<\\u001b[1234567890123456m\"", "<\\u001b[[MASKED:KNOWN]\""),
        ("12345678901234;abc", "<\x1b[12345678901234;abc.", "<\x1b[[MASKED:KNOWN]."),
        ("65;abcdefgh", "&#0000000000065;abcdefgh.", "&#00000000000[MASKED:KNOWN]."),
        ("U0001F60", "a \\U0001F600 b", "a \\[MASKED:KNOWN] b"),
    ] {
        wherever_it_is_cut(value.as_bytes(), text.as_bytes(), expected);
    }
}

/// Where the escape character is coded, what it would hide is undone before it.
#[test]
fn a_value_with_escape_characters_is_found_in_every_layer() {
    for value in ["a\x1b[%66%9&c\"de", "2\x1b\\\"\x1b(%41]x\x1b(zz", "every\x1b]%41=3D\n\x1b\\b\x1b[0m%6"] {
        let mut text = value.to_owned();
        for _ in 0..4 {
            wherever_it_is_cut(value.as_bytes(), format!("<{text}>").as_bytes(), "<[MASKED:KNOWN]>");
            text = serde_json::to_string(&text).unwrap().trim_matches('"').to_owned();
        }
        let coloured = format!("{}\x1b[31m{}", &value[..3], &value[3..]);
        wherever_it_is_cut(value.as_bytes(), format!("<{coloured}>").as_bytes(), "<[MASKED:KNOWN]>");
    }
    // What has none is seen through them as before.
    wherever_it_is_cut(b"abcdefgh", b"<abc\x1b[1mdefgh>", "<[MASKED:KNOWN]>");
}

#[test]
fn what_gave_nothing_and_is_out_stays_decided_in_something_coded() {
    use base64::Engine as _;
    // The zeros are decided before what begins behind them.
    for zeros in 0..9 {
        let value = b"abcdefgh-ijkl";
        let plain =
            [&b"text before it, and then"[..], &vec![0; zeros], b"abcdefgh-x", b" behind it"].concat();
        let coded = base64::engine::general_purpose::STANDARD.encode(plain);
        wherever_it_is_cut(value, coded.as_bytes(), &coded);
    }
}

#[test]
fn what_interrupts_an_escape_is_waited_for() {
    wherever_it_is_cut(b"Abcdefgh", b"x %4\\u0031bcdefgh", "x [MASKED:KNOWN]");
    wherever_it_is_cut(b"Abcdefgh", "x %\u{ad}41bcdefgh".as_bytes(), "x [MASKED:KNOWN]");
    let value = b"a(\\\\f>b%1Ec\\'d";
    for text in ["a(\\\u{2060}\\f>b%1Ec\\'d", "a(\\\\f>b%\u{ad}1Ec\\'d", "a(\\\\f>b%1\u{200d}Ec\\'d"] {
        wherever_it_is_cut(value, format!("x {text}.").as_bytes(), "x [MASKED:KNOWN].");
    }
}

#[test]
fn a_private_key_goes_on_behind_what_nobody_sees() {
    let text = "x -----BEGIN PRIVATE KEY-----\r\n\u{200b}MIIB\r\n-----END PRIVATE KEY-----\r\n.";
    for cuts in (0..=text.len()).map(|at| vec![at]).chain([(0..text.len()).collect()]) {
        let out = in_chunks(&all(), text.as_bytes(), cuts).0;
        assert!(!String::from_utf8_lossy(&out).contains("MI"), "{}", out.escape_ascii());
    }
}

/// What is compressed looks like this, and who unpacks it would see that a byte was changed.
#[test]
fn noise_behind_what_a_password_stands_behind_is_none() {
    const HEADS: [&str; 6] = ["-u a", "--user a:", ";pwd=", "://u:", "password: \"", "-u ':"];
    const EACH: usize = 4000;
    let masker = Masker::new(&Selection::parse([SET_SECRETS]).unwrap(), &[]).unwrap();
    let mut state = 1_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    for head in HEADS {
        let mut text = Vec::new();
        for _ in 0..EACH {
            text.extend_from_slice(head.as_bytes());
            (0..6).for_each(|_| text.extend(noise()));
        }
        let (_, findings) = masker.mask(&text);
        assert!(findings.total() < 40, "{head}: {} of {EACH}", findings.total());
    }
    let dumped =
        [b"\0\x01curl -u admin:h0pk1ns~21s\x02\xff\xfe".as_slice(), b"://me:hunter2@host\0\xff"].concat();
    let (masked, _) = masker.mask(&dumped);
    assert_eq!(
        masked.as_bytes(),
        b"\0\x01curl -u admin:[MASKED:COMMAND_PASSWORD]\x02\xff\xfe://me:[MASKED:URL_PASSWORD]@host\0\xff"
    );
}
