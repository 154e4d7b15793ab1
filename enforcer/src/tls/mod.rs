//! Leaf certificates, their signer, and both sides of TLS.
