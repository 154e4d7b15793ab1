use super::*;

const GOOD: &str = "\
version: 1
detectors:
  - id: acme-deploy-token
    entity: ACME_DEPLOY_TOKEN
    pattern: 'acme_(?<secret>[a-z0-9]{16})'
    confidence: 0.8
    checks: [random]
    not_before: alnum
    allow: [0123456789abcdef]
    examples: ['token: acme_a1b2c3d4e5f6a7b8']
    counter_examples: ['acme_aaaaaaaaaaaaaaaa', 'acme_0123456789abcdef', 'acme_short']
";

fn load(text: &str) -> Result<Custom, CustomErrors> {
    Custom::load(&[("acme.yaml".to_owned(), text.to_owned())])
}

#[test]
fn a_detector_with_its_tests_loads() {
    let custom = load(GOOD).unwrap();
    assert_eq!(custom.len(), 1);
    let detector = &custom.0[0];
    assert_eq!((&*detector.set, &*detector.entity), ("secrets", "ACME_DEPLOY_TOKEN"));
    assert!(load("version: 1\ndetectors: []").unwrap().is_empty());
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (from, to, line, why) in [
        ("[a-z0-9]{16}", "[a-z0-9]+", 5, "no upper bound"),
        ("acme_(?<secret>[a-z0-9]{16})", "[a-z0-9]{16}", 5, "fixed bytes"),
        ("acme_(?<secret>", "acme_((?<secret>", 5, "unclosed"),
        ("token: acme_a", "token: a", 10, "does not find this example"),
        ("allow: [0123456789abcdef]", "allow: []", 11, "finds this counter-example"),
        ("    examples:", "    # examples:", 3, "`examples` is missing"),
        ("    counter_examples:", "    # counter_examples:", 3, "`counter_examples` is missing"),
        ("acme-deploy-token", "AcmeToken", 3, "lower-case"),
        ("acme-deploy-token", "private-key", 3, "another detector"),
        ("ACME_DEPLOY_TOKEN", "acme", 4, "capitals"),
        ("0.8", "8", 6, "from 0 to 1"),
        ("[random]", "[entropie]", 7, "entropy:BITS"),
        ("[random]", "[random, real, digit, letter]", 3, "at most 3 checks"),
        ("not_before: alnum", "not_before: x", 8, "no class"),
        ("checks:", "check:", 7, "check"),
        ("version: 1", "version: 2", 1, "version"),
        ("confidence: 0.8", "set: exact", 6, "neither"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = load(&GOOD.replacen(from, to, 1)).unwrap_err().errors.remove(0);
        assert!(error.message.contains(why), "{to}: {error}");
        assert!(error.line.abs_diff(line) <= 1, "{to}: line {} and not {line}", error.line);
        assert!(error.to_string().starts_with("acme.yaml:"), "{error}");
    }
    let twice = Custom::load(&[("a".to_owned(), GOOD.to_owned()), ("b".to_owned(), GOOD.to_owned())]);
    assert!(twice.unwrap_err().to_string().contains("b:3: another detector"));
}

#[test]
fn numbers_have_limits() {
    let many = |count: usize| {
        let detectors = (0..count).map(|n| {
            format!("  - {{id: a{n}, entity: A, pattern: abcde{n}x, examples: [abcde{n}x], counter_examples: [b]}}\n")
        });
        load(&format!("version: 1\ndetectors:\n{}", detectors.collect::<String>())).map(|custom| custom.len())
    };
    assert_eq!(many(CUSTOM_MAX).unwrap(), CUSTOM_MAX);
    assert!(many(CUSTOM_MAX + 1).unwrap_err().to_string().contains("more than 500"));
    let texts = |count: usize| {
        let more = vec!["'acme_short'"; count].join(", ");
        load(&GOOD.replace("'acme_short'", &more)).is_ok()
    };
    // Two others stand beside them.
    assert!(texts(CUSTOM_TEXTS_MAX - 2) && !texts(CUSTOM_TEXTS_MAX - 1));
    let long = |bytes: usize| format!("{GOOD}#{}\n", "x".repeat(bytes - GOOD.len() - 2));
    assert!(load(&long(CUSTOM_FILE_MAX_BYTES)).is_ok());
    assert!(load(&long(CUSTOM_FILE_MAX_BYTES + 1)).unwrap_err().to_string().contains("more than"));
}
