//! Payment, trade and shipping.

use super::{H16, M20, U36, marked, token};
use crate::mask::{check::Check, rule::Detector};

/// The table.
pub(super) static PAYMENT: &[Detector] = &[
    marked("stripe-key", "STRIPE_KEY", "[srp]k_(?:live|test|prod)_[A-Za-z0-9]{10,250}")
        .yes(&[&["sk_", "live_", M20], &["rk_", "test_", M20]]),
    marked("stripe-webhook-secret", "STRIPE_WEBHOOK_SECRET", "whsec_[A-Za-z0-9+/]{32,128}={0,2}")
        .yes(&[&["whsec_", M20, M20]]),
    token("square-token", "SQUARE_TOKEN", "EAAA[A-Za-z0-9_+=-]{56,62}")
        .check(Check::Random)
        .check(Check::Mixed)
        .yes(&[&["EAAA", M20, M20, M20]]),
    marked("square-application-token", "SQUARE_TOKEN", "sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,60}")
        .yes(&[&["sq0atp-", M20, "ab"]]),
    marked("braintree-token", "BRAINTREE_TOKEN", r"access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}")
        .yes(&[&["access_token$production$", H16, "$", H16, H16]]),
    marked("plaid-token", "PLAID_TOKEN", "access-(?:sandbox|development|production)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["access-sandbox-", U36]]),
    marked("flutterwave-key", "FLUTTERWAVE_KEY", "FLW(?:PUB|SEC)K(?:_TEST|_LIVE)?-[A-Za-z0-9]{12,40}(?:-X)?")
        .yes(&[&["FLWSECK_TEST-", H16, H16, "-X"]]),
    marked("shippo-token", "SHIPPO_TOKEN", "shippo_(?:live|test)_[A-Fa-f0-9]{40}")
        .yes(&[&["shippo_test_", H16, H16, "01234567"]]),
    token("easypost-key", "EASYPOST_KEY", "EZ[AT]K[A-Za-z0-9]{54}")
        .check(Check::Random)
        .yes(&[&["EZTK", M20, M20, "abcdefGHIJ0123"]]),
    marked("gocardless-token", "GOCARDLESS_TOKEN", "live_[A-Za-z0-9_=-]{40}")
        .check(Check::Mixed)
        .check(Check::Scrambled)
        .yes(&[&["live_", M20, M20]]),
    marked("pagarme-key", "PAGARME_KEY", "ak_(?:live|test)_[A-Za-z0-9]{30}")
        .yes(&[&["ak_live_", M20, "abcdefGHIJ"]]),
    marked("razorpay-key", "RAZORPAY_KEY", "rzp_(?:live|test)_[A-Za-z0-9]{14}")
        .yes(&[&["rzp_live_", "abCD12efGH34ij"]]),
    marked("shopify-token", "SHOPIFY_TOKEN", "shp(?:at|ca|pa|ss|tka)_[A-Fa-f0-9]{30,34}")
        .yes(&[&["shpat_", H16, H16]]),
    marked("duffel-token", "DUFFEL_TOKEN", "duffel_(?:live|test)_[A-Za-z0-9_=-]{43}")
        .yes(&[&["duffel_test_", M20, M20, "abc"]]),
    token("coinbase-key", "COINBASE_KEY", "organizations/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/apiKeys/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["organizations/", U36, "/apiKeys/", U36]]),
    marked("checkout-key", "CHECKOUT_KEY", "sk_(?:test_|sbox_)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["sk_test_", U36]]),
];
