//! The forms in which a secret can be written down, from the secret: what programs do with
//! text on its way, one function each.

mod escapes;
mod packed;
mod text;

use crate::chance::Chance;

/// How much is promised of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// As written, or nearly.
    Must,
    /// A standard coding that any client undoes.
    MustDecoded,
    /// Rare or nested: found, or stopped, or at least noted.
    BlockOrFlag,
}

/// A secret, and what a body may hold around it.
pub struct Given<'a> {
    pub secret: &'a [u8],
    /// Stands before it and behind it, in the same coding if the coding takes it in.
    pub around: [&'a [u8]; 2],
}

impl Given<'_> {
    /// The secret with its surroundings.
    fn whole(&self) -> Vec<u8> {
        [self.around[0], self.secret, self.around[1]].concat()
    }

    /// A coding of the secret alone, between its surroundings as they are.
    fn inside(&self, coded: &[u8]) -> Vec<u8> {
        [self.around[0], coded, self.around[1]].concat()
    }

    fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.secret).ok()
    }

    fn ascii(&self) -> Option<&str> {
        self.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
    }
}

/// One form.
pub struct Form {
    pub name: &'static str,
    pub class: Class,
    make: Make,
    undo: Undo,
}

impl Form {
    /// A body that holds the secret in this form; none if it cannot be written so.
    pub fn body(&self, given: &Given<'_>, chance: &mut Chance) -> Option<Vec<u8>> {
        (self.make)(given, chance)
    }

    /// Whether what stands for the secret is replaced as a whole, from its first byte.
    pub fn is_replaced_whole(&self) -> bool {
        let coded =
            IN_A_CODING.iter().any(|it| self.name.to_ascii_lowercase().contains(&it.to_ascii_lowercase()));
        // Of the one with soft breaks an escape stands before it.
        !coded && !self.name.starts_with("UTF-") && !self.name.ends_with("soft breaks")
    }

    /// Whether something of the secret, and be it a character, is to be seen before its
    /// placeholder, in what came of a body that begins with `before`.
    ///
    /// A secret that itself begins with something that nobody sees, or with an escape of it, is
    /// found from behind that: nothing can be said of its first bytes.
    pub fn shows_beginning(&self, output: &[u8], before: &[u8], secret: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'%' | b'&' | b'=');
        if !self.is_replaced_whole() || !secret.first().is_some_and(plain) {
            return false;
        }
        let behind = output.strip_prefix(before);
        behind.is_some_and(|it| !it.is_empty() && !it.starts_with(b"[MASKED:"))
    }

    /// Whether the secret can be read out of this by undoing the form. Pieces count if
    /// they are long enough not to be there by chance.
    pub fn shows(&self, output: &[u8], secret: &[u8]) -> bool {
        let readable = |text: &[u8]| memchr::memmem::find(text, secret).is_some() || piece(text, secret);
        readable(output) || (self.undo)(output).iter().any(|text| readable(text))
    }
}

/// Forms of digits, or in which the surroundings are in the coding, too: in place of the value
/// stands something coded, and of a value in two codings the first bytes may stay.
const IN_A_CODING: [&str; 6] = ["base64", "hex", "Basic", "data:", "bytea", "base32"];

/// The shortest piece that counts, and the share of the secret that it must be.
const PIECE: usize = 12;

/// Whether so much of the secret stands there that the rest can be guessed: half of it.
fn piece(text: &[u8], secret: &[u8]) -> bool {
    let length = secret.len().div_ceil(2);
    length >= PIECE
        && [&secret[..length], &secret[secret.len() - length..]]
            .iter()
            .any(|part| memchr::memmem::find(text, part).is_some())
}

/// All forms.
pub fn all() -> Vec<Form> {
    [text::FORMS, escapes::FORMS, packed::FORMS]
        .into_iter()
        .flatten()
        .map(|&(name, class, make, undo)| Form { name, class, make, undo })
        .collect()
}

/// Writes a secret in a form.
type Make = fn(&Given<'_>, &mut Chance) -> Option<Vec<u8>>;
/// All that a text can be read as, if the form is undone in it.
type Undo = fn(&[u8]) -> Vec<Vec<u8>>;
/// As the tables list them.
type Listed = (&'static str, Class, Make, Undo);

/// For forms that are readable as they are, or that cannot be undone in part.
fn as_it_is(_: &[u8]) -> Vec<Vec<u8>> {
    Vec::new()
}

#[test]
fn every_form_shows_the_secret_to_who_undoes_it() {
    let mut chance = Chance::seeded(5);
    for form in all() {
        let secrets: [&[u8]; 3] = [
            b"AKIAQ7XK3PLM5RTZ2VWN",
            b"a/b+c\"d\\e%41&f=g~h?i",
            "gr\u{fc}n-\u{20ac}-\u{1f511}-schl\u{fc}ssel".as_bytes(),
        ];
        let mut made = 0;
        for secret in secrets {
            for around in [[&b""[..], &b""[..]], [b"key: ", b" end"], [b"{\"key\":\"", b"\"}\n"]] {
                let given = Given { secret, around };
                if let Some(body) = form.body(&given, &mut chance) {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    assert!(form.shows(&body, secret), "{}: {text}", form.name);
                    made += 1;
                }
                let other = Given { secret: b"nothing that anybody would look for", around };
                if let Some(body) = form.body(&other, &mut chance) {
                    assert!(!form.shows(&body, secret), "{}", form.name);
                }
            }
        }
        assert!(made > 0, "{}", form.name);
    }
}
