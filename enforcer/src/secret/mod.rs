//! Values that must not be shown, logged or left in memory.
//!
//! **Invariant**: nothing here implements `Display`, and `Debug` and the default
//! `Serialize` never see the value. A value that has to cross the link between
//! our own processes says so at the field: `#[serde(with = "secret::exposed")]`.

pub mod process;

use std::fmt;

use secrecy::{ExposeSecret, SecretBox, zeroize::Zeroize};

/// A value whose memory is overwritten when it is dropped and which prints as `Secret(..)`.
pub struct Secret<T: Zeroize>(SecretBox<T>);

/// A secret that is any bytes.
pub type SecretBytes = Secret<Vec<u8>>;

/// A secret that is text.
pub type SecretText = Secret<String>;

impl<T: Zeroize> Secret<T> {
    /// Takes the value over; the caller should keep no copy.
    pub fn new(value: T) -> Self {
        Self(SecretBox::new(Box::new(value)))
    }

    /// The value itself. Every call of this is a place to look at in a review.
    pub fn expose(&self) -> &T {
        self.0.expose_secret()
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self::new(self.expose().clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<&SecretText> for SecretBytes {
    fn from(text: &SecretText) -> Self {
        Self::new(text.expose().as_bytes().to_vec())
    }
}

/// For `#[serde(with = "...")]` on the few fields that carry a secret from one of our
/// processes to another over an inherited socket.
pub mod exposed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::SecretText;

    /// Writes the value itself.
    pub fn serialize<S: Serializer>(secret: &SecretText, to: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(to)
    }

    /// Reads a value straight into a [`SecretText`].
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretText, D::Error> {
        String::deserialize(from).map(SecretText::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret = SecretText::new("hunter2hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.clone().expose(), "hunter2hunter2");
    }

    #[test]
    fn an_exposed_field_round_trips() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Message {
            #[serde(with = "exposed")]
            value: SecretText,
        }
        let sent = Message { value: SecretText::new("a value".to_owned()) };
        let json = serde_json::to_string(&sent).unwrap();
        let got: Message = serde_json::from_str(&json).unwrap();
        assert_eq!(got.value.expose(), "a value");
    }
}
