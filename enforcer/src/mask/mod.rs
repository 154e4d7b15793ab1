//! Finding and replacing secrets and personal data.
