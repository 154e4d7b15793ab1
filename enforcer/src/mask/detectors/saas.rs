//! Other services.

use super::{A16, H16, M20, U36, marked, secret, token};
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// The table.
pub(super) static SAAS: &[Detector] = &[
    marked("adobe-secret", "ADOBE_SECRET", "p8e-[A-Za-z0-9-]{32}")
        .yes(&[&["p8e-", M20, "abcdefGHIJ01"]]),
    secret("age-secret-key", "AGE_SECRET_KEY", "(?i:AGE-SECRET-KEY-1)[0-9A-Za-z]{58}")
        .yes(&[&["AGE-SECRET-", "KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"]]),
    secret("beamer-token", "BEAMER_TOKEN", r#"(?i:beamer)[A-Za-z0-9_]{0,12}["']?[ \t]{0,3}[:=][ \t]{0,3}["']?(?<secret>b_[A-Za-z0-9=_/+-]{44})"#)
        .yes(&[&["beamer_key = b_", M20, M20, "abcd"]]),
    token("clickup-token", "CLICKUP_TOKEN", "pk_[0-9]{6,9}_[0-9A-Z]{32}")
        .yes(&[&["pk_12345678_", A16, A16]]),
    secret("contentful-token", "CONTENTFUL_TOKEN", "CFPAT-[A-Za-z0-9_-]{43}")
        .yes(&[&["CFPAT-", M20, M20, "abc"]]),
    marked("datadog-personal-token", "DATADOG_KEY", "ddp_[A-Za-z0-9]{36}")
        .yes(&[&["ddp_", M20, A16]]),
    marked("defined-networking-token", "DEFINED_NETWORKING_TOKEN", "dnkey-[A-Za-z0-9=_-]{79}")
        .yes(&[&["dnkey-", M20, "abcdef", "-", M20, M20, "abcdefghijkl"]]),
    token("dynatrace-token", "DYNATRACE_TOKEN", r"dt0[a-z][0-9]{2}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}")
        .yes(&[&["dt0c01.", M20, "abcd", ".", M20, M20, M20, "abcd"]]),
    marked("figma-token", "FIGMA_TOKEN", "fig[dou]_[A-Za-z0-9_-]{40}")
        .yes(&[&["figd_", M20, M20]]),
    marked("flexport-token", "FLEXPORT_TOKEN", "shltm_[A-Za-z0-9_-]{40}")
        .yes(&[&["shltm_", M20, M20]]),
    secret("frameio-token", "FRAMEIO_TOKEN", "fio-u-[A-Za-z0-9_=-]{64}")
        .yes(&[&["fio-u-", M20, M20, M20, "abcd"]]),
    secret("freemius-key", "FREEMIUS_KEY", r#"secret_key["'][ \t]{0,4}=>[ \t]{0,4}["'](?<secret>sk_[^\s"']{29})"#)
        .yes(&[&["'secret_key' => 'sk_", M20, "abcdefghi'"]]),
    marked("grafana-cloud-token", "GRAFANA_TOKEN", "(?i:glc)_[A-Za-z0-9+/]{32,400}={0,3}")
        .check(Check::Random)
        .yes(&[&["glc_eyJ", M20, M20]]),
    marked("grafana-service-token", "GRAFANA_TOKEN", "(?i:glsa)_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}")
        .check(Check::Entropy(3.0))
        .yes(&[&["glsa_", M20, "abcdefGHIJ01", "_", "01234567"]]),
    token("grafana-key", "GRAFANA_TOKEN", "eyJrIjoi[A-Za-z0-9+/]{50,400}={0,2}")
        .yes(&[&["eyJrIjoi", M20, M20, M20]]),
    token("klaviyo-key", "KLAVIYO_KEY", "pk_[A-Za-z0-9]{34}")
        .check(Check::Random)
        .yes(&[&["pk_", M20, "abcdefGHIJ0123"]]),
    token("mapbox-token", "MAPBOX_TOKEN", r"[pst]k\.eyJ[A-Za-z0-9_+/=-]{29,300}\.[A-Za-z0-9_+/=-]{20,30}")
        .yes(&[&["sk.eyJ", M20, M20, ".", M20, "ab"]]),
    secret("mailsac-key", "MAILSAC_KEY", r#"(?i:mailsac)[ _-]?[A-Za-z]{0,12}[ \t:="']{1,6}(?<secret>k_[A-Za-z0-9]{36,64})"#)
        .yes(&[&["mailsac key = k_", M20, A16]]),
    marked("newrelic-key", "NEWRELIC_KEY", "NR(?:AK-[A-Za-z0-9]{27}|JS-[a-f0-9]{19}|II-[A-Za-z0-9_-]{32}|AA-[a-f0-9]{27}|AL-[A-Za-z0-9]{32})")
        .yes(&[&["NRAK-", M20, "abcdefg"], &["NRJS-", H16, "012"]]),
    marked("notion-token", "NOTION_TOKEN", "ntn_[0-9]{10,12}[A-Za-z0-9]{34,36}")
        .check(Check::Letter)
        .yes(&[&["ntn_12345678901", M20, "abcdefGHIJ01234"]]),
    marked("notion-secret", "NOTION_TOKEN", "secret_[A-Za-z0-9]{43}")
        .check(Check::Random)
        .check(Check::Mixed)
        .yes(&[&["secret_", M20, M20, "abc"]]),
    marked("posthog-key", "POSTHOG_KEY", "ph[cxs]_[A-Za-z0-9_]{43}")
        .yes(&[&["phx_", M20, M20, "abc"]]),
    marked("pubnub-key", "PUBNUB_KEY", "(?:sub|pub|sec)-c-[A-Za-z0-9]{8}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{12}")
        .yes(&[&["sub-c-", U36]]),
    marked("sentry-token", "SENTRY_TOKEN", "sntry(?:s_eyJ[A-Za-z0-9+/=_-]{50,1000}|u_[a-f0-9]{64})")
        .yes(&[&["sntrys_", "eyJ", M20, M20, M20], &["sntryu_", H16, H16, H16, H16]]),
    marked("settlemint-token", "SETTLEMINT_TOKEN", "sm_(?:aat|pat|sat)_[A-Za-z0-9]{16}")
        .yes(&[&["sm_aat_", "a1B2c3D4e5F6g7H8"]]),
    secret("sidekiq-url", "SIDEKIQ_CREDENTIAL", r"://(?<secret>[a-f0-9]{8}:[a-f0-9]{8})@(?:gems|enterprise)\.contribsys\.com")
        .yes(&[&["https://", "cafebabe", ":", "deadbeef", "@gems.contribsys.com/"]]),
    secret("tines-webhook", "TINES_WEBHOOK", r"\.tines\.com/webhook/(?<secret>[a-z0-9]{32}/[a-z0-9]{32})")
        .yes(&[&["https://x.tines.com/webhook/", H16, H16, "/", H16, H16]]),
    marked("typeform-token", "TYPEFORM_TOKEN", "tfp_[A-Za-z0-9_.-]{40,60}")
        .yes(&[&["tfp_", M20, M20]]),
    marked("ubidots-token", "UBIDOTS_TOKEN", "BBFF-[A-Za-z0-9]{30}")
        .yes(&[&["BBFF-", M20, "abcdefGHIJ"]]),
    secret("teamwork-token", "TEAMWORK_TOKEN", r"tkn\.v1_[A-Za-z0-9]{71}=")
        .yes(&[&["tkn.v1_", M20, M20, M20, "abcdefghijk="]]),
    secret("asana-pat", "ASANA_PAT", r#"(?i:asana)[A-Za-z0-9_]{0,12}["']?[ \t]{0,3}[:=][ \t]{0,3}["']?(?<secret>[0-9]/[0-9a-f/]{16,34}:[a-z0-9]{32,64})"#)
        .yes(&[&["asana_pat = 1/", "1234567890123456", ":", H16, H16]]),
    secret("cloverly-key", "CLOVERLY_KEY", r#"(?i:cloverly)[A-Za-z0-9_ ]{1,20}[:=]["' ]{0,3}(?<secret>[a-z0-9:_]{28})"#)
        .yes(&[&["cloverly_key=", "abcdefgh01234567890123456789"]]),
    marked("launchdarkly-key", "LAUNCHDARKLY_KEY", "(?:sdk|api|mob)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["sdk-", U36]]),
    secret("okta-token", "OKTA_TOKEN", "(?i:SSWS) (?<secret>00[A-Za-z0-9_-]{40})")
        .yes(&[&["Authorization: SSWS 00", M20, M20]]),
    secret("truenas-key", "TRUENAS_KEY", "(?i:bearer) (?<secret>[0-9]{1,4}-[A-Za-z0-9]{64})")
        .yes(&[&["Authorization: Bearer 8-", M20, M20, M20, "abcd"]]),
    secret("zapier-webhook", "ZAPIER_WEBHOOK", r"hooks\.zapier\.com/hooks/catch/(?<secret>[A-Za-z0-9/]{8,40})")
        .yes(&[&["https://hooks.zapier.com/hooks/catch/", "1234567/abc1def/"]]),
    secret("splunk-token", "SPLUNK_TOKEN", "(?i:Authorization): ?Splunk (?<secret>[0-9A-Fa-f-]{36})")
        .yes(&[&["Authorization: Splunk ", U36]]),
    token("confluent-key", "CONFLUENT_KEY", "cflt[A-Za-z0-9+/]{60}")
        .yes(&[&["cflt", M20, M20, M20]]),
    secret("youtube-stream-key", "YOUTUBE_KEY", r#"(?i:youtube)[A-Za-z0-9_":{' ]{0,32}(?i:key)["']?[ \t]{0,2}[:=][ \t]{0,2}["']?(?<secret>[A-Za-z0-9_-]{39})"#)
        .not_before(ByteSet::WORD)
        .check(Check::Random)
        .yes(&[&["\"youtube\":{\"api", "_key\":\"", M20, "abcdefghij012345678", "\""]]),
];
