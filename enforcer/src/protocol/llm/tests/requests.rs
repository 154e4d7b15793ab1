//! Requests: files stay, signed text is not changed, all else is masked.

use bytes::Bytes;

use super::kit::{MASKED, SECRET, exact, masker};
use crate::protocol::llm::{LlmError, LlmRequest};

const TOKEN: &str = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";

fn pass(body: &str, cut: usize) -> Result<String, LlmError> {
    let mut request = LlmRequest::new(&masker(), exact());
    let mut out = Vec::new();
    for half in [&body.as_bytes()[..cut], &body.as_bytes()[cut..]] {
        out.extend_from_slice(request.push(Bytes::copy_from_slice(half))?.as_bytes());
    }
    out.extend_from_slice(request.finish()?.as_bytes());
    Ok(String::from_utf8(out).unwrap())
}

fn at_every_cut(body: &str, wanted: &str) {
    for cut in 0..=body.len() {
        assert_eq!(pass(body, cut).unwrap(), wanted, "cut at {cut}");
    }
}

/// An image in whose base64 a token stands by chance.
fn image() -> String {
    format!("iVBORw0KGgo{}AKIAZ7VRSQ5TJN2XMPLQ/{}==", "A".repeat(200), "B".repeat(70))
}

#[test]
fn files_stay_as_they_are_unless_a_known_value_is_in_them() {
    let image = image();
    let plain = masker().text(&image).0;
    assert_ne!(plain.as_str(), image, "the masker alone would change the image");
    for body in [
        format!(
            r#"{{"messages":[{{"content":[{{"type":"image","source":{{"type":"base64","data":"{image}","media_type":"image/png"}}}},{{"text":"x"}}]}}]}}"#
        ),
        format!(r#"{{"image_url":{{"url":"data:image/png;base64,{image}"}},"n":1}}"#),
        format!(r#"{{"images" : ["{image}","{image}"]}}"#),
    ] {
        at_every_cut(&body, &body);
    }
    use base64::Engine;
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend([0; 90]);
    bytes.extend_from_slice(SECRET.as_bytes());
    bytes.extend([0; 30]);
    let known = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let out = pass(&format!(r#"{{"data":"{known}"}}"#), 100).unwrap();
    // What stands there is coded, too.
    let data = out.trim_start_matches(r#"{"data":""#).trim_end_matches(r#""}"#);
    let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
    let data = String::from_utf8_lossy(&data);
    assert!(data.contains(MASKED) && !data.contains(SECRET), "{data}");
}

#[test]
fn text_is_masked_wherever_it_stands() {
    let image = image();
    let body = format!(
        r#"{{"system":"{TOKEN}","messages":[{{"content":"a \"{SECRET}\" b"}},{{"data":"{image}","t":"{TOKEN}"}}],"tools":"{SECRET}"}}"#
    );
    let wanted = body.replace(TOKEN, "[MASKED:GITHUB_TOKEN]").replace(SECRET, MASKED);
    at_every_cut(&body, &wanted);
    // A type that is only said, a name that is only taken, and text behind a file.
    for body in [
        format!(r#"{{"media_type":"image/png","data":"{TOKEN}","x":"{}"}}"#, "y".repeat(90)),
        format!(r#"{{"url":"data:image/png;base64,{TOKEN}","x":"{}"}}"#, "y".repeat(90)),
        format!(r#"{{"signature":"fn f(key: &str) {} {TOKEN}"}}"#, "z".repeat(70)),
        format!(r#"{{"data":"{image} {TOKEN}"}}"#),
    ] {
        let wanted = body.replace(TOKEN, "[MASKED:GITHUB_TOKEN]");
        at_every_cut(&body, &wanted);
    }
}

#[test]
fn signed_thinking_is_refused_and_not_changed() {
    let signature = "Eq".repeat(60);
    let block = |thinking: &str, signature: &str| {
        format!(
            r#"{{"content":[{{"type":"thinking","thinking":"{thinking}","signature":"{signature}"}},{{"type":"text","text":"{TOKEN}"}}]}}"#
        )
    };
    let clean = block("hm \\n so", &signature);
    at_every_cut(&clean, &clean.replace(TOKEN, "[MASKED:GITHUB_TOKEN]"));
    let changed = block(&format!("hm {TOKEN} so"), &signature);
    let before = format!(r#"{{"type":"thinking","signature":"{signature}","thinking":"{TOKEN} "}}"#);
    for body in [changed, before] {
        for cut in 0..=body.len() {
            assert!(matches!(pass(&body, cut), Err(LlmError::SignedThinking)), "cut at {cut}");
        }
    }
    // Nobody signed this.
    let unsigned = block(TOKEN, "");
    at_every_cut(&unsigned, &unsigned.replace(TOKEN, "[MASKED:GITHUB_TOKEN]"));
    let redacted = format!(r#"{{"type":"redacted_thinking","data":"{}"}}"#, image());
    at_every_cut(&redacted, &redacted);
    use base64::Engine;
    let known = base64::engine::general_purpose::STANDARD.encode(format!("{}{SECRET}", "x".repeat(60)));
    let body = format!(r#"{{"type":"redacted_thinking","data":"{known}"}}"#);
    assert!(matches!(pass(&body, 50), Err(LlmError::SignedThinking)));
}
