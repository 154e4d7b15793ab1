use proptest::prelude::*;

use super::check::{pieces, whole};
use super::*;

fn normal(raw: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(&whole(raw.as_ref()).bytes).into_owned()
}

/// Text, and its normal form.
const CASES: &[(&[u8], &str)] = &[
    (br#"a\nb\tc\"d\'e\/f\\g"#, "a\nb\tc\"d'e/f\\g"),
    (br"a\rb\bc\fd", "ab\u{8}c\u{c}d"),
    (br"\u0041\u004b\u00e9\u4e2d.", "AKé中."),
    (br"\ud835\udc00\uD83D\uDE00", "A😀"),
    (br"\u{41}\u{0000004b}\u{1D400}.", "AKA."),
    (br"\U00000041\U0001D400", "AA"),
    (br"AKI\x41 \x41\x4b\x49\x41", "AKIA AKIA"),
    (br"\101\113\111\101", "AKIA"),
    (b"AK%49A%4b%u0041%uD835%uDC00", "AKIAKAA"),
    (b"&#65;&#x4b;&#0073&#X41;", "AKIA"),
    (b"&lt;a href=&quot;x&apos;&gt;&amp;&lowbar;&shy;&percnt;", "<a href=\"x'>&_%"),
    ("A\u{200b}K\u{ad}I\u{feff}A\u{2060}Q\u{fe0f}7\u{e0101}X\u{34f}K\u{202e}".as_bytes(), "AKIAQ7XK"),
    ("\u{e0041}\u{e004b}\u{e0049}\u{e0041}\u{e0001}".as_bytes(), "AKIA"),
    ("ＡＫＩＡ７＿－ 𝐀𝓚𝕀𝖠𝟩 ⒶⓀⒾⒶ① ﬁﬄ \u{a0}".as_bytes(), "AKIA7_- AKIA7 AKIA1 fiffl  "),
    ("АКІА ΑΚΙΑ ѕеϲrеt ꓮꓗꓲꓮ sk‑ant".as_bytes(), "AKIA AKIA secret AKIA sk-ant"),
    (b"AKIAQ\x1b[31m7XK\x1b[0m\x1b(B \x1b]0;t\x077\x1b]8;;\x1b\\\x1bM", "AKIAQ7XK 7M"),
    (b"A\0K\0I\0A\0 \0A\0\0\0K\0\0\0", "AKIA AK"),
    (b"\0A\0K\0I\0A", "AKIA"),
    (b"a\r\nb", "a\nb"),
    (b"=41=4B=49=41 token=3DAKIA href=3D\"x\"", "AKIA token=AKIA href=\"x\""),
    (b"a=3Db long=\r\nline lo=\nng", "a=b longline long"),
];

/// What is not an escape, or not all of one.
const SAME: &[&[u8]] = &[
    br"\q \u12 \u{} \u{123456789} \u{110000} \ud835x \udc00 \ud835\u00 \U00110000 \x4 \x4g \18 \400 \",
    br"\x414b49415137584b",
    b"100% %4 %g1 %u12 %uD835%u004 %uDC00 %",
    b"a && b &self &&str &amp &nosuch; &#; &#x; &#xg; &a1; &#55555555; &",
    b"k=41 a = b == c =4 =4b =1F =C3=A9 k=3DAB01CD = =\n =",
    "café über søster naïve 中文 かな 한국어 עברית عربي ไทย 😀🇩🇪 «»°§ “”…–€".as_bytes(),
    b"\xff\xfe\xc0\x80 \xe2\x80 \xef\xbc\xf3\xa0 \xed\xa0\x80 \xf5\x80\x80\x80",
    b"x\x08 \x07\x01\x7f\t\n",
];

#[test]
fn each_escape_gives_what_it_stands_for() {
    for (raw, expected) in CASES {
        assert_eq!(normal(raw), *expected, "{}", raw.escape_ascii());
        assert!(!Normaliser::default().is_plain(raw), "{}", raw.escape_ascii());
    }
}

#[test]
fn what_is_no_escape_stays() {
    for raw in SAME {
        let out = whole(raw);
        assert_eq!(out.bytes, *raw, "{}", raw.escape_ascii());
        assert!(out.escapes().next().is_none() && !out.again());
        let whole_lines = [raw, &b" "[..]].concat();
        let complete = !raw.ends_with(b"\\") && whole(&whole_lines).escapes().next().is_none();
        assert!(!complete || Normaliser::default().is_plain(&whole_lines), "{}", raw.escape_ascii());
    }
}

#[test]
fn no_cut_makes_a_difference() {
    let texts = CASES.iter().map(|(raw, _)| *raw).chain(SAME.iter().copied());
    for raw in texts {
        let expected = whole(raw).bytes;
        for cut in 0..=raw.len() {
            assert_eq!(pieces(raw, &[cut]).0, expected, "{} cut at {cut}", raw.escape_ascii());
        }
        let every: Vec<usize> = (0..raw.len()).collect();
        assert_eq!(pieces(raw, &every).0, expected, "{}", raw.escape_ascii());
    }
}

#[test]
fn the_longest_escapes_are_undone_and_one_byte_more_is_not() {
    let entity = |zeros: usize| format!("&#{}65;", "0".repeat(zeros));
    let most = ESCAPE_MAX_BYTES - "&#65;".len();
    assert_eq!(normal(entity(most)), "A");
    assert_eq!(normal(entity(most + 1)), entity(most + 1));
    let colour = |digits: usize| format!("\x1b[{}m", "1".repeat(digits));
    let most = ESCAPE_MAX_BYTES - "\x1b[m".len();
    assert_eq!(normal(colour(most)), "");
    assert_eq!(normal(colour(most + 1)), colour(most + 1)[1..]);
    let title = |len: usize| format!("\x1b]0;{}\x07", "t".repeat(len));
    assert_eq!(normal(title(7)), "");
    assert_eq!(normal(title(8)), title(8)[1..]);
    assert_eq!(normal(r"\x41414"), "A414");
    assert_eq!(normal(r"\x414142 "), r"\x414142 ");
}

#[test]
fn what_waits_is_an_escape_that_is_not_complete() {
    for (raw, taken) in [
        (&b"abc\\"[..], 3),
        (b"abc%4", 3),
        (b"abc&am", 3),
        (b"abc&sf", 6),
        (b"abc%4 ", 6),
        (b"abc=3DABC", 3),
        (b"abc\x1b[3", 3),
        (b"abc\xe2\x80", 3),
        (b"abc\xe4\xb8", 5),
        (b"abc\xc3", 4),
        (b"ready?", 6),
    ] {
        let mut out = Normal::default();
        assert_eq!(Normaliser::default().push(raw, false, &mut out), taken, "{}", raw.escape_ascii());
        assert_eq!(Normaliser::default().is_plain(raw), taken == raw.len());
        assert_eq!(out.raw(out.bytes.len()), taken);
    }
}

#[test]
fn escapes_in_escapes_come_one_layer_a_pass() {
    for (layers, text) in [
        (&["%2541", "%41", "A"][..], ""),
        (&[r"\\u0041", r"\u0041", "A"], ""),
        (&[r#"{\"a\": \"x\\\"y\"}"#, r#"{"a": "x\"y"}"#, r#"{"a": "x"y"}"#], ""),
        (&["&amp;#65;", "&#65;", "A"], ""),
        (&["%\u{200b}41", "%41", "A"], ""),
        (&["\\\0u\x000\x000\x004\x001\0", r"\u0041", "A"], ""),
        (&["%EF%BC%A1", "\u{ff21}", "A"], ""),
        (&[r"\u001b[31mA", "\x1b[31mA", "A"], ""),
        (&["%\\u0034\\x31", "%41", "A"], ""),
        (&["=3\x1b[0mD\"", "=3D\"", "=\""], ""),
    ] {
        let mut text = text.to_owned() + layers[0];
        for (depth, layer) in layers.iter().enumerate().skip(1) {
            let out = whole(text.as_bytes());
            assert_eq!(out.bytes, layer.as_bytes(), "{layers:?}");
            assert!(out.again() || depth + 1 == layers.len(), "{layers:?}");
            text = (*layer).to_owned();
        }
    }
    for flat in
        [r#"{"m": "a\nb \"class=\" \u00e9"}"#, "100% sure\r\nx = a;\r\nif (a && b)\r\n", "a &lt; b %20 c"]
    {
        assert!(!whole(flat.as_bytes()).again(), "{flat}");
    }
}

#[test]
fn what_is_left_out_belongs_to_neither_neighbour() {
    let out = whole(b"ab\x1b[0m cd");
    assert_eq!(out.bytes, b"ab cd");
    assert_eq!((out.raw_end(2), out.raw(2)), (2, 6));
    let twice = whole(b"A\0\0\0B");
    assert_eq!((twice.raw_end(1), twice.raw(1), twice.raw(2)), (1, 4, 5));
    let mut state = Normaliser::default();
    let mut out = Normal::default();
    assert_eq!(state.push(b"%41%4", false, &mut out), 3);
    assert_eq!(state.push(b"%42c", true, &mut out), 4);
    assert_eq!((out.bytes.as_slice(), out.raw(1), out.raw(2), out.raw(3)), (&b"ABc"[..], 3, 6, 7));
    out.clear();
    assert!(out.bytes.is_empty() && out.escapes().next().is_none() && out.raw(0) == 0);
}

#[test]
fn every_character_that_is_folded_is_a_candidate() {
    for char in ('\u{80}'..=char::MAX).filter(|c| fold::of(u32::from(*c)) != fold::SELF) {
        let folded = match fold::of(u32::from(char)) {
            fold::NOTHING => String::new(),
            value @ b' '.. => char::from(value).to_string(),
            value => fold::ligature(value).to_owned(),
        };
        for before in [0, 30, 31, 32, 63] {
            let before = "x".repeat(before);
            assert_eq!(
                normal(format!("{before}{char}")),
                format!("{before}{folded}"),
                "{:x}",
                u32::from(char)
            );
        }
    }
}

/// Bytes of which escapes are made, more often than others.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (0..CASES.len()).prop_map(|i| CASES[i].0.to_vec()),
        (0..SAME.len()).prop_map(|i| SAME[i].to_vec()),
        "[\\\\%&=#xuU0-9a-fA-F{};\\n\\r\\x00\\x1b\\[\\]]{0,12}".prop_map(String::into_bytes),
        "[a-z =\"]{0,40}".prop_map(String::into_bytes),
        "\\PC{0,6}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_chunking_equals_the_whole(raw in soup(), cuts in any::<[u8; check::CUTS]>()) {
        check::the_normal_form_is_the_same_for_any_cut(&[&cuts[..], &raw].concat());
    }

    #[test]
    fn plain_is_what_a_push_leaves_alone(raw in soup()) {
        let mut out = Normal::default();
        let taken = Normaliser::default().push(&raw, false, &mut out);
        let alone = taken == raw.len() && out.escapes().next().is_none();
        prop_assert_eq!(Normaliser::default().is_plain(&raw), alone);
    }

    #[test]
    fn without_again_the_next_pass_finds_nothing(raw in soup()) {
        let first = whole(&raw);
        if first.escapes().next().is_some() && !first.again() {
            let second = whole(&first.bytes);
            let text = second.escapes().find(|e| first.bytes[e.raw].is_ascii());
            prop_assert!(text.is_none(), "{} gives {}", raw.escape_ascii(), first.bytes.escape_ascii());
        }
    }
}
