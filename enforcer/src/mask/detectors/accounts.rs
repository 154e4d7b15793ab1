//! Names of accounts and of customers at a vendor: no secrets, but half of what one needs to use one.

use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// What a host's name is made of.
const HOST: ByteSet = ByteSet::ALNUM.with(b"-.");

const fn account(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "accounts", pattern).sure(0.6)
}

/// The table.
pub(super) static ACCOUNTS: &[Detector] = &[
    account("tenant-host", "TENANT_HOST", r"(?<secret>[A-Za-z0-9][A-Za-z0-9-]{0,62})\.(?:jfrog\.io|(?:[a-z]{2}\.)?auth0\.com|okta(?:preview)?\.com|atlassian\.net|my\.salesforce\.com|myshopify\.com|zendesk\.com|service-now\.com|sharepoint\.com|onmicrosoft\.com|snowflakecomputing\.com|cloud\.databricks\.com|azuredatabricks\.net|azurecr\.io|openai\.azure\.com|vault\.azure\.net|(?:search|database|servicebus|(?:blob|file|queue|table|dfs)\.core)\.windows\.net)")
        .at_runs(ByteSet::ALNUM, HOST, Some(b'.'))
        .between(HOST)
        .yes(&[&["https://acme.jfrog.io/x"], &["AUTH0_DOMAIN=acme.eu.auth0.com"], &["acme1.blob.core.windows.net"]])
        .no(&[&["docs.jfrog.com and jfrog.io"]]),
    account("azure-organisation", "TENANT_HOST", r"dev\.azure\.com/(?<secret>[A-Za-z0-9][A-Za-z0-9-]{1,49})")
        .yes(&[&["git clone https://dev.azure.com/acme/_git/x"]]),
    account("sonar-host", "TENANT_HOST", r#"(?i:sonar)[._](?i:host)(?:[._](?i:url))?["']?[ \t]{0,3}[:=][ \t]{0,3}["']?https?://(?<secret>[A-Za-z0-9.-]{3,253})"#)
        .yes(&[&["sonar.host.url=https://sonar.acme.example:9000"]]),
    account("storage-account", "ACCOUNT_ID", r#"(?i:storage_?(?:account)?_?name|AccountName)["']?[ \t]{0,3}[:=][ \t]{0,3}["']?(?<secret>[a-z0-9]{3,24})"#)
        .not_before(ByteSet::WORD.with(b"("))
        .yes(&[&["storage_account_name = \"acmedata1\""], &["AccountName=acmedata1;"]]),
    account("algolia-application", "ACCOUNT_ID", r#"(?i:algolia)[A-Za-z_.-]{0,8}(?i:app(?:lication)?[_-]?id)["']?[ \t]{0,3}(?:=>|[:=])[ \t]{0,3}["']?(?<secret>[A-Z0-9]{10})"#)
        .not_before(ByteSet::WORD)
        .yes(&[&["algolia_app_id = \"", "AB12CD34EF", "\""]]),
    account("facebook-application", "ACCOUNT_ID", r#"(?i:facebook|fb)[ ._-]?(?i:app(?:lication)?[_-]?id)["']?[ \t]{0,3}(?:=>|[:=])[ \t]{0,3}["']?(?<secret>[0-9]{15,16})"#)
        .not_before(ByteSet::WORD)
        .yes(&[&["fb_app_id: 218284", "7931462001"]]),
    account("atlas-public-key", "ACCOUNT_ID", r#"(?i:mongodb|atlas)[_.-](?i:public|pub)(?i:[_.-]key)?["']?[ \t]{0,3}[:=][ \t]{0,3}["']?(?<secret>[A-Za-z0-9]{8,10})"#)
        .not_before(ByteSet::WORD)
        .yes(&[&["mongodb-public-key: abcdwxyz"]]),
    account("age-recipient", "AGE_RECIPIENT", "age1[02-9ac-hj-np-z]{58}")
        .between(ByteSet::ALNUM)
        .check(Check::Real)
        .yes(&[&["age1qpzry9x8gf2tvdw0s3jn54khce6mua7l", "qpzry9x8gf2tvdw0s3jn54khce"]]),
    account("user-name", "USER_NAME", r#"(?i:user(?:[_ -]?(?:name|id))?)["']?[ \t]{0,3}(?::=|=>|=|:[ \t"'])[ \t]{0,3}["']?(?<secret>[A-Za-z0-9][A-Za-z0-9._@\\+-]{2,63})"#)
        .not_before(ByteSet::WORD.with(b"([<{"))
        .check(Check::Password)
        .yes(&[&["user = Aladdin\n"], &["\"username\": \"jane.doe\""]])
        .no(&[&["user = find(1)"], &["user: null"], &["curl -u user:token"]]),
];
