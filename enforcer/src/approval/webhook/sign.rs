//! By what it is known that a message is from here: the signature of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config::SECRET;

/// What signs. It is not to be seen.
pub struct Signer(hmac::Key);

impl Signer {
    /// Of what stands in a secret's file: `whsec_` and base64, as libraries make them, or the very bytes.
    pub fn new(secret: &str) -> Result<Self, &'static str> {
        let decoded;
        let bytes = match secret.strip_prefix("whsec_") {
            Some(coded) => {
                decoded = zeroize::Zeroizing::new(
                    STANDARD.decode(coded).map_err(|_| "has `whsec_`, and what follows is not base64")?,
                );
                decoded.as_slice()
            }
            None => secret.as_bytes(),
        };
        if !SECRET.contains(&bytes.len()) {
            return Err("is not of 24 to 256 bytes: make one with `echo whsec_$(openssl rand -base64 32)`");
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// As it stands in `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn it_is_signed_as_libraries_verify_it() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_as_long_as_it_has_to_be() {
        let coded = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for bytes in [*SECRET.start(), *SECRET.end()] {
            Signer::new(&"x".repeat(bytes)).map(drop).unwrap();
            Signer::new(&coded(bytes)).map(drop).unwrap();
        }
        for secret in [
            "x".repeat(SECRET.start() - 1),
            "x".repeat(SECRET.end() + 1),
            coded(SECRET.start() - 1),
            coded(SECRET.end() + 1),
            "whsec_!".to_owned(),
            String::new(),
        ] {
            assert!(Signer::new(&secret).is_err(), "{secret}");
        }
        // The same bytes are the same key, however they are written.
        let text = "x".repeat(24);
        let same = format!("whsec_{}", STANDARD.encode(&text));
        assert_eq!(
            Signer::new(&text).unwrap().sign("a", 1, b"b"),
            Signer::new(&same).unwrap().sign("a", 1, b"b")
        );
    }
}
