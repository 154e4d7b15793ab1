//! Messages, mail and social networks.

use super::{A16, H16, M20, U36, marked, secret, token};
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// The table.
pub(super) static CHAT: &[Detector] = &[
    token("slack-token", "SLACK_TOKEN", "xox[aeoprsb](?:-[0-9])?-[A-Za-z0-9]{6,16}-[A-Za-z0-9-]{6,250}")
        .not_before(ByteSet::ALNUM.with(b"#*<"))
        .check(Check::Digit)
        .check(Check::Entropy(2.6))
        .yes(&[&["xoxb", "-1234567890-", M20]])
        .no(&[&["xoxo", "-indieweb-and-more"]]),
    marked("slack-token-legacy", "SLACK_TOKEN", "xox[ar]-(?:[0-9]-)?[0-9A-Za-z]{8,48}")
        .check(Check::Random)
        .yes(&[&["xoxa-2-", M20]]),
    token("slack-configuration-token", "SLACK_TOKEN", r"xoxe(?:\.xox[bp])?-[0-9]-[A-Za-z0-9]{140,170}")
        .yes(&[&["xoxe", ".xoxp-1-", M20, M20, M20, M20, M20, M20, M20, M20]]),
    marked("slack-app-token", "SLACK_TOKEN", "(?i:xapp)-[0-9]{1,3}-[A-Za-z0-9]{6,16}-[0-9]{6,16}-[A-Za-z0-9]{10,128}")
        .yes(&[&["xapp", "-1-A0123456789-1234567890-", H16, H16]]),
    secret("slack-webhook", "SLACK_WEBHOOK", r"hooks\.slack\.com/(?:services|workflows|triggers)/(?<secret>[A-Za-z0-9_-]{6,14}/[A-Za-z0-9_-]{6,24}/[A-Za-z0-9_/-]{20,64})")
        .check(Check::Random)
        .yes(&[&["https://hooks.slack", ".com/services/T01234567/B01234567/", M20]]),
    secret("discord-webhook", "DISCORD_WEBHOOK", "/api/webhooks/[0-9]{17,20}/(?<secret>[A-Za-z0-9_-]{60,72})")
        .yes(&[&["https://discord.com/api/webhooks/123456789012345678/", M20, M20, M20, "abcdefgh"]]),
    secret("teams-webhook", "TEAMS_WEBHOOK", r"office\.com/webhook(?:b2)?/(?<secret>[A-Za-z0-9-]{36}@[A-Za-z0-9-]{36}/IncomingWebhook/[A-Za-z0-9]{32}/[A-Za-z0-9-]{34,36})")
        .yes(&[&["https://outlook.office.com/webhook/", U36, "@", U36, "/IncomingWebhook/", H16, H16, "/", U36]]),
    secret("telegram-bot-token", "TELEGRAM_BOT_TOKEN", ":AA[A-Za-z0-9_-]{33}")
        .not_after(ByteSet::DIGIT.not())
        .not_before(ByteSet::WORD)
        .yes(&[&["bot12345678", ":AA", M20, "bcdefghijklmn"]]),
    secret("telegram-url", "TELEGRAM_BOT_TOKEN", "tgram://(?<secret>[0-9]{8,10}:[A-Za-z0-9_-]{35})")
        .yes(&[&["tgram://12345678:", M20, "abcdefghijklmno"]]),
    secret("telegram-named", "TELEGRAM_BOT_TOKEN", r#"(?i:telegram)[A-Za-z0-9_]{0,12}["']?[ \t]{0,3}[:=]?[ \t]{0,3}["']?(?<secret>[0-9]{8,10}:[A-Za-z0-9_-]{35})"#)
        .yes(&[&["telegram: 12345678:", M20, "abcdefghijklmno"]]),
    token("twilio-key", "TWILIO_KEY", "(?:SK|AC)[0-9a-f]{32}")
        .check(Check::Random)
        .yes(&[&["SK", H16, H16]]),
    token("sendgrid-key", "SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}")
        .yes(&[&["SG.", M20, ".", M20, M20]]),
    marked("sendinblue-key", "SENDINBLUE_KEY", "xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}")
        .yes(&[&["xkeysib-", H16, H16, H16, H16, "-", A16]]),
    marked("mailgun-key", "MAILGUN_KEY", "key-[a-f0-9]{32}")
        .yes(&[&["key-", H16, H16]]),
    marked("mailgun-public-key", "MAILGUN_KEY", "pubkey-[a-f0-9]{32}")
        .yes(&[&["pubkey-", H16, H16]]),
    token("zoho-token", "ZOHO_TOKEN", r"1000\.[a-f0-9]{32}\.[a-f0-9]{32}")
        .yes(&[&["1000.", H16, H16, ".", H16, H16]]),
    marked("intra42-secret", "INTRA42_SECRET", "s-s4t2(?:ud|af)-[a-f0-9]{64}")
        .yes(&[&["s-s4t2ud-", H16, H16, H16, H16]]),
    marked("hubspot-token", "HUBSPOT_TOKEN", "pat-(?:na|eu|ap)[0-9]-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["pat-na1-", U36]]),
    token("facebook-page-token", "FACEBOOK_TOKEN", "EAA[A-Z][A-Za-z0-9]{80,400}")
        .check(Check::Entropy(4.0))
        .yes(&[&["EAAC", M20, M20, M20, M20]]),
    token("facebook-explorer-token", "FACEBOOK_TOKEN", "EAACEdEose0cBA[A-Za-z0-9]{20,300}")
        .yes(&[&["EAACEdEose0cBA", M20]]),
    secret("facebook-app-token", "FACEBOOK_TOKEN", r#"(?i:facebook)[A-Za-z0-9_" ':=-]{0,24}(?<secret>[0-9]{15,16}(?:\||%7C)[A-Za-z0-9_-]{27,40})"#)
        .yes(&[&["facebook 123456789012345|", M20, "abcdefg"]]),
    token("instagram-token", "INSTAGRAM_TOKEN", "IG(?:QV|AA)[A-Za-z0-9_-]{100,400}")
        .check(Check::Random)
        .yes(&[&["IGQV", M20, M20, M20, M20, M20]]),
    token("twitter-bearer", "TWITTER_TOKEN", "AAAAAAAAAAAAAAAAAAAAA[A-Za-z0-9%=/+]{60,120}")
        .check(Check::Entropy(3.5))
        .yes(&[&["AAAAAAAAAAAAAAAAAAAAA", M20, "%3D", M20, M20]]),
    secret("twitter-named", "TWITTER_TOKEN", r#"(?i:twitter)[A-Za-z0-9_]{0,20}["']?[ \t]{0,3}[:=][ \t]{0,3}["']?(?<secret>[A-Za-z0-9]{20,59}[%\x80-\xff][A-Za-z0-9%\x80-\xff]{48,100})"#)
        .yes(&[&["twitter_token=", M20, "%", M20, M20, "abcdefghijkl"]]),
];
