//! The detectors over examples of what is a secret and what is not.
//!
//! The examples are lines of JSON (`rule`, `tp`, `fp`), from the folder that
//! `ENFORCER_VECTORS` names, or else made up here.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::Deserialize;

use super::{Masker, Place, Selection};

#[derive(Deserialize)]
struct Case {
    rule: String,
    tp: Option<Vec<String>>,
    fp: Option<Vec<String>>,
}

/// The cases of a file, if the folder is named.
fn load(name: &str) -> Option<Vec<Case>> {
    let folder = PathBuf::from(std::env::var_os("ENFORCER_VECTORS")?);
    let text = fs::read_to_string(folder.join(name)).unwrap();
    Some(text.lines().filter(|l| !l.trim().is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect())
}

/// Names and operators as programs and files write them.
const FORMS: [&str; 12] = [
    "{} = \"@\"",
    "export {}=@\nNEXT=1",
    "{}: @",
    "\"{}\": \"@\",",
    "  \"{}\" => \"@\"",
    "<{}>\n    @\n</{}>",
    "String {} = \"@\";",
    "System.setProperty(\"{}\", \"@\")",
    "var {} string = \"@\"",
    "{} := `@`",
    "{} ?= \"@\"",
    "{\"config.ini\": \"{}=@\\nBACKUP=true\"}",
];

/// Made up here: every example of the tables, and values behind names in all forms.
fn own() -> Vec<Case> {
    let mut cases: Vec<Case> = super::detectors::all()
        .filter(|d| d.set == "secrets")
        .map(|d| Case {
            rule: d.rule.to_string(),
            tp: Some(d.examples.iter().map(|pieces| format!("x={}\" end", pieces.concat())).collect()),
            fp: Some(d.counter.iter().map(|pieces| pieces.concat()).collect()),
        })
        .collect();
    let value = ["Zf3D0LXCM3EIMbgJ", "pUNnkRtOfOueHznB"].concat();
    let digits = ["951bc382db9abad2", "9c68634761dd6e19"].concat();
    let fill =
        |name: &str, value: &str| FORMS.map(|form| form.replace("{}", name).replace('@', value)).to_vec();
    for name in ["api_token", "clientSecret", "ADAFRUIT_KEY", "algolia_api_key", "db-password", "asanaToken"]
    {
        cases.push(Case { rule: name.to_owned(), tp: Some(fill(name, &value)), fp: None });
    }
    for name in ["public_key", "checksum", "commit", "token_id", "file_path", "primaryKey"] {
        let both = [fill(name, &value), fill(name, &digits)].concat();
        cases.push(Case { rule: name.to_owned(), tp: None, fp: Some(both) });
    }
    for words in ["some-ordinary-words-2", "X25519.secret_length", "${API_TOKEN}", "xxxxxxxxxxxxxxxxxxxx1"] {
        cases.push(Case { rule: words.to_owned(), tp: None, fp: Some(fill("api_token", words)) });
    }
    cases
}

fn masker(sets: &[&str]) -> Masker {
    Masker::new(&Selection::parse(sets).unwrap(), &[]).unwrap()
}

/// What was found, with the rule.
fn found(masker: &Masker, text: &[u8]) -> Vec<(String, String)> {
    let part = |from, to| String::from_utf8_lossy(&text[from..to]).into_owned();
    masker.explain(text).unwrap().into_iter().map(|e| (e.rule, part(e.from, e.to))).collect()
}

/// The same text as a string of JSON, cut somewhere, and in gzip: found each time, and masked alike
/// however it is cut.
fn in_all_clothes(masker: &Masker, text: &str, seed: usize) -> bool {
    let json = serde_json::json!({ "text": text }).to_string();
    let (whole, findings) = masker.mask(json.as_bytes());
    let mut stream = masker.stream_at(Place::Other);
    let cut = seed.wrapping_mul(2_654_435_761) % json.len();
    let mut out = Vec::new();
    for chunk in [&json[..cut], &json[cut..]] {
        out.extend_from_slice(stream.push(Bytes::copy_from_slice(chunk.as_bytes())).unwrap().as_bytes());
    }
    out.extend_from_slice(stream.finish().unwrap().as_bytes());
    let cut_alike = out == whole.as_bytes() && stream.findings() == &findings;
    if !cut_alike {
        println!("cut at {cut}: {json:.200}");
    }
    cut_alike && !findings.is_empty() && !masker.mask(&through_gzip(json.as_bytes())).1.is_empty()
}

/// Into gzip and out of it.
fn through_gzip(text: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(text).unwrap();
    let coded = coder.finish().unwrap();
    let mut decoded = Vec::new();
    flate2::read::MultiGzDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap();
    decoded
}

/// How much was found of what should be, and of what should not.
#[derive(Default)]
struct Score {
    tp: usize,
    missed: usize,
    fp: usize,
    wrong: usize,
}

impl Score {
    /// Adds the cases; what one rule must not find can be what another must.
    fn of(masker: &Masker, cases: &[Case], all: &BTreeSet<&String>) -> Self {
        let mut score = Self::default();
        for case in cases {
            for text in case.tp.iter().flatten() {
                score.tp += 1;
                if found(masker, text.as_bytes()).is_empty() || !in_all_clothes(masker, text, score.tp) {
                    score.missed += 1;
                    println!("missed {}: {text:.200}", case.rule);
                }
            }
            for text in case.fp.iter().flatten().filter(|t| !all.contains(t)) {
                score.fp += 1;
                let found = found(masker, text.as_bytes());
                // An address is one, wherever it stands.
                if found.iter().any(|(rule, _)| rule != "email") {
                    score.wrong += 1;
                    println!("wrong {}: {found:?} in {text:.200}", case.rule);
                }
            }
        }
        score
    }

    fn is_within(&self, what: &str, missed: usize, wrong: usize) {
        let Self { tp, missed: not_found, fp, wrong: hit } = self;
        println!("{what}: {not_found} of {tp} missed, {hit} of {fp} wrong");
        assert!(not_found * 1000 <= tp * missed, "{what}: {not_found} of {tp} missed");
        assert!(hit * 1000 <= fp * wrong, "{what}: {hit} of {fp} wrong");
    }
}

/// Names of accounts and hosts of customers are among the examples, and e-mail addresses; they are
/// no secrets, and have sets of their own.
#[test]
fn secrets_are_found_and_little_else() {
    let own = own();
    let [gitleaks, kingfisher] =
        ["gitleaks-vectors.jsonl", "kingfisher-vectors.jsonl"].map(|name| load(name).unwrap_or_default());
    let files = || gitleaks.iter().chain(&kingfisher);
    let all: BTreeSet<&String> = files().chain(&own).flat_map(|c| c.tp.iter().flatten()).collect();
    // In thousandths: what may be missed, and what may be wrong.
    for (sets, most) in [(&["secrets"][..], [0, 15, 65]), (&["secrets", "pii", "accounts"], [0, 15, 30])] {
        let masker = masker(sets);
        let mut wrong = Score::default();
        for ((what, cases), most) in
            [("own", &own), ("gitleaks", &gitleaks), ("kingfisher", &kingfisher)].into_iter().zip(most)
        {
            let score = Score::of(&masker, cases, &all);
            score.is_within(&format!("{sets:?}, {what}"), most, 1000);
            wrong.fp += score.fp;
            wrong.wrong += score.wrong;
        }
        wrong.is_within(&format!("{sets:?}"), 0, 20);
    }
}

/// Files of a folder, and of those in it.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), all);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
}

/// Text without secrets: the folder that `ENFORCER_BENIGN` names, or the packages that this
/// program is built of.
#[test]
fn what_packages_are_made_of_is_left_alone() {
    let folder = std::env::var_os("ENFORCER_BENIGN").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask"));
    let masker = masker(&["secrets"]);
    let mut all = Vec::new();
    files(&folder, &mut all);
    let (mut bytes, mut hits) = (0, 0);
    for file in all {
        let text = fs::read(&file).unwrap();
        bytes += text.len();
        for (rule, what) in found(&masker, &text) {
            hits += 1;
            println!("hit {rule}\t{what:.120}\t{}", file.display());
        }
    }
    println!("{hits} hits in {bytes} bytes");
    assert!(hits * 5_000_000 <= bytes.max(5_000_000), "{hits} hits in {bytes} bytes");
}
