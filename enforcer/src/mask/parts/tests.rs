use super::*;
use crate::mask::{Layer, SURROGATE_KEY_BYTES};
use crate::secret::SecretBytes;

fn masker(names: &[&str], parts: &[(&str, &str, Strategy)]) -> Masker {
    let mut layer = Layer::default();
    for name in names {
        layer.name(name, Strategy::Placeholder).unwrap();
    }
    for (kind, name, strategy) in parts {
        layer.part(Part::parse(kind, name).unwrap(), *strategy);
    }
    let key = SurrogateKey::new(&SecretBytes::new(vec![3; SURROGATE_KEY_BYTES])).unwrap();
    let exact = [ExactValue::new("DEPLOY", &SecretBytes::from("obviously fake")).unwrap()];
    Masker::keyed(&layer.into(), &exact, Some(key)).unwrap()
}

/// The names and the parts of one rule.
type Said<'a> = (&'a [(&'a str, Strategy)], &'a [(&'a str, &'a str, Strategy)]);

fn together(rules: &[Said<'_>]) -> Masker {
    let mut all = Selection::None;
    for (names, parts) in rules {
        let mut layer = Layer::default();
        for (name, strategy) in *names {
            layer.name(name, *strategy).unwrap();
        }
        for (kind, name, strategy) in *parts {
            layer.part(Part::parse(kind, name).unwrap(), *strategy);
        }
        all = all.union(&layer.into());
    }
    let exact = [ExactValue::new("DEPLOY", &SecretBytes::from("obviously fake")).unwrap()];
    Masker::keyed(&all, &exact, None).unwrap()
}

/// However one rule treats a part, what another says of what stands in it is done.
#[test]
fn no_rule_about_a_part_opens_what_another_closes() {
    use Strategy::{Deny, Drop, KeepLast4, Observe, Placeholder};
    let cookie = "a=1; session=s3ss10n; b=obviously fake";
    for way in ["cookie", "set-cookie"] {
        let masker = together(&[(&[], &[("cookie", "session", Drop)]), (&[], &[("header", way, Observe)])]);
        assert_eq!(header(&masker, way, "session=s3ss10n"), "session=");
        let masker = together(&[(&[], &[("cookie", "session", Drop)]), (&[], &[("header", way, KeepLast4)])]);
        assert!(!header(&masker, way, "session=s3ss10n").contains("s10n"));
    }
    let masker = together(&[(&[("exact", Placeholder)], &[]), (&[], &[("header", "cookie", Observe)])]);
    assert_eq!(header(&masker, "cookie", cookie), "a=1; session=s3ss10n; b=[MASKED:DEPLOY]");
    // What denies, and what is stricter than the last four letters.
    for (strategy, denies) in [(Deny, true), (Placeholder, false), (Observe, false)] {
        let parts: [(&str, &str); 5] = [
            ("header", "authorization"),
            ("cookie", "session"),
            ("query", "key"),
            ("form", "key"),
            ("json", "$.key"),
        ];
        let named = parts.map(|(kind, name)| (kind, name, KeepLast4));
        let masker = together(&[(&[("exact", strategy)], &[]), (&[], &named)]);
        let of_body = |kind: &str, text: &str| body(&masker, kind, text).ok();
        let text =
            |masked: Result<(Masked, Findings), MaskError>| Some(masked.ok()?.0.to_text().into_owned());
        let secret = [
            text(masker.header("authorization", b"obviously fake")),
            text(masker.header("cookie", b"session=obviously fake")),
            masker.query("key=obviously%20fake").ok().map(|(masked, _)| masked.as_str().to_owned()),
            of_body("application/x-www-form-urlencoded", "key=obviously+fake"),
            of_body("application/json", r#"{"key": "obviously fake"}"#),
        ];
        for said in &secret {
            assert_eq!(said.is_none(), denies, "{strategy:?} {secret:?}");
            let kept = said.as_ref().is_some_and(|said| said.contains("fake"));
            assert_eq!(kept, strategy == Observe, "{strategy:?} {secret:?}");
        }
        // And what is none is masked as it was.
        assert!(header(&masker, "authorization", "something else").contains("else"));
    }
}

fn header(masker: &Masker, name: &str, value: &str) -> String {
    masker.header(name, value.as_bytes()).unwrap().0.to_text().into_owned()
}

/// Masks a body with every cut; all give the same.
fn body(masker: &Masker, kind: &str, text: &str) -> Result<String, MaskError> {
    let masked = |cuts: &[&[u8]]| {
        let mut parts = masker.body_parts(kind.as_bytes()).expect("there are parts");
        let mut out = Vec::new();
        for cut in cuts {
            out.extend_from_slice(&parts.push(Bytes::copy_from_slice(cut))?);
        }
        out.extend_from_slice(&parts.finish()?);
        Ok::<_, MaskError>((String::from_utf8(out).unwrap(), parts.findings().total()))
    };
    let whole = masked(&[text.as_bytes()]);
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    let halves = (0..=text.len()).map(|cut| text.as_bytes().split_at(cut));
    for cuts in halves.map(|(a, b)| vec![a, b]).chain([bytes]) {
        match (&whole, masked(&cuts)) {
            (Ok(whole), Ok(cut)) => assert_eq!(*whole, cut),
            (Err(_), Err(_)) => {}
            (whole, cut) => panic!("{whole:?} and {cut:?}"),
        }
    }
    whole.map(|(text, _)| text)
}

#[test]
fn a_header_is_masked_as_a_whole_or_left_alone() {
    let masker = masker(
        &["secrets"],
        &[("header", "x-own", Strategy::Placeholder), ("header", "x-key", Strategy::Observe)],
    );
    assert_eq!(header(&masker, "X-Own", "anything"), "[MASKED:X_OWN]");
    assert_eq!(header(&masker, "x-key", "obviously fake"), "obviously fake");
    assert_eq!(header(&masker, "x-other", "obviously fake"), "[MASKED:DEPLOY]");
    assert!(!masker.is_noop());
}

#[test]
fn cookies_and_parameters_are_found_by_their_names() {
    let masker = masker(
        &["secrets"],
        &[
            ("cookie", "sid", Strategy::Surrogate),
            ("cookie", "theme", Strategy::Observe),
            ("query", "pass word", Strategy::Placeholder),
            ("query", "key", Strategy::Observe),
        ],
    );
    let cookies = header(&masker, "cookie", "a=obviously fake; sid=1234; theme=obviously fake; b=2");
    assert!(cookies.starts_with("a=[MASKED:DEPLOY]; sid=[SID:"), "{cookies}");
    assert!(cookies.ends_with("]; theme=obviously fake; b=2"), "{cookies}");
    let set = header(&masker, "Set-Cookie", "sid=1234; theme=obviously fake; Path=/");
    assert!(set.starts_with("sid=[SID:") && set.ends_with("]; theme=[MASKED:DEPLOY]; Path=/"), "{set}");
    let query = |text: &str| masker.query(text).unwrap().0.as_str().to_owned();
    assert_eq!(
        query("a=1&pass+word=x&pass%20word=y&b"),
        "a=1&pass+word=%5BMASKED:PASS_WORD%5D&pass%20word=%5BMASKED:PASS_WORD%5D&b"
    );
    assert_eq!(query("key=obviously fake&c=obviously fake"), "key=obviously fake&c=[MASKED:DEPLOY]");
    assert_eq!(query(""), "");
}

#[test]
fn encoded_names_are_read_as_servers_read_them() {
    for (name, same) in [
        ("a b", true),
        ("a+b", true),
        ("a%20b", true),
        ("%61%20%62", true),
        ("a%2", false),
        ("a%2b", false),
        ("a%", false),
        ("", false),
        ("a%20bc", false),
    ] {
        assert_eq!(is_encoded("a b", name.as_bytes()), same, "{name}");
    }
    assert!(is_encoded("100%", b"100%") && is_encoded("100%", b"100%25"));
}

#[test]
fn values_in_json_are_masked_and_it_stays_json() {
    let masker = masker(
        &[],
        &[("json", "$.users[*].pin", Strategy::Placeholder), ("json", "$..note", Strategy::KeepLast4)],
    );
    let text = r#"{"users": [{"pin": 1234, "id": 1}, {"pin": "a\"b", "note": "\u0061bcdefghijkl"}], "pin": 5}
{"users": [{"pin": null}]}"#;
    let masked = body(&masker, "application/json; charset=utf-8", text).unwrap();
    assert_eq!(
        masked,
        r#"{"users": [{"pin": "[MASKED:PIN]", "id": 1}, {"pin": "[MASKED:PIN]", "note": "[MASKED:NOTE:...ijkl]"}], "pin": 5}
{"users": [{"pin": null}]}"#
    );
    assert_eq!(body(&masker, "text/plain", text).unwrap(), masked, "it looks like JSON");
    assert_eq!(body(&masker, "text/plain", "pin {").unwrap(), "pin {");
    assert_eq!(body(&masker, "text/plain", "{pin}").unwrap(), "{pin}", "it is none after all");
    for broken in ["{\"users\": [{\"pin\": \"12", "{pin}", "{\"users\": ["] {
        let error = body(&masker, "application/json", broken).unwrap_err();
        assert!(matches!(error, MaskError::NotJson), "{broken}");
    }
    assert_eq!(body(&masker, "application/json", "").unwrap(), "");
}

#[test]
fn fields_of_a_form_are_masked() {
    let masker = masker(&[], &[("form", "password", Strategy::Placeholder), ("form", "pin", Strategy::Drop)]);
    let kind = "application/x-www-form-urlencoded";
    assert_eq!(
        body(&masker, kind, "a=1&pass%77ord=x=y&pin=&pin=1&b=2").unwrap(),
        "a=1&pass%77ord=%5BMASKED:PASSWORD%5D&pin=&pin=&b=2"
    );
    assert_eq!(body(&masker, kind, "password=last").unwrap(), "password=%5BMASKED:PASSWORD%5D");
    assert_eq!(body(&masker, kind, "a&password").unwrap(), "a&password");
    assert!(masker.body_parts(b"text/plain").is_none());
}

#[test]
fn a_long_value_is_masked_without_being_kept() {
    let masker = masker(&[], &[("json", "$.a", Strategy::KeepLast4)]);
    let masked = |length: usize| {
        let mut parts = masker.body_parts(b"application/json").unwrap();
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(length));
        String::from_utf8(parts.push(Bytes::from(text)).unwrap().to_vec()).unwrap()
    };
    assert_eq!(masked(PART_VALUE_MAX_BYTES), "{\"a\":\"[MASKED:A:...xxxx]\"}");
    assert_eq!(masked(PART_VALUE_MAX_BYTES + 1), "{\"a\":\"[MASKED:A]\"}");
}

#[test]
fn a_part_can_be_what_denies() {
    let masker = masker(&[], &[("json", "$.a", Strategy::Deny), ("header", "x-a", Strategy::Hold)]);
    assert!(matches!(body(&masker, "application/json", "{\"a\":1}"), Err(MaskError::Denied { .. })));
    assert_eq!(body(&masker, "application/json", "{\"b\":1}").unwrap(), "{\"b\":1}");
    assert!(matches!(masker.header("x-a", b"1"), Err(MaskError::Held { .. })));
}
