//! Clouds, platforms, databases and stores of secrets.

use super::{A16, H16, M20, U36, marked, secret, token};
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// The table.
pub(super) static CLOUD: &[Detector] = &[
    secret("aws-access-key-id", "AWS_ACCESS_KEY_ID", "A(?:KIA|SIA)[A-Z0-9]{16}")
        .yes(&[&["AKIA", A16], &["AKIA", "AKIA", A16], &["ASIA", A16]])
        .no(&[&["AKIA", "abcdefghijklmnop"]]),
    // In base64 of programs these two are not rare.
    token("aws-context-key-id", "AWS_ACCESS_KEY_ID", "A(?:BIA|CCA)[A-Z0-9]{16}")
        .between(ByteSet::BASE64)
        .yes(&[&["ABIA", "B1C2D3E4F5G6H7J8"]])
        .no(&[&["xABIA", "B1C2D3E4F5G6H7J8"]]),
    secret("aws-secret-access-key", "AWS_SECRET_ACCESS_KEY", r#"(?i:secret[_-]?(?:access[_-]?)?key)["'\] \t]{0,8}(?:=>|[:=>]|,)[\\"' \t]{0,8}(?<secret>[A-Za-z0-9/+]{40})"#)
        .not_before(ByteSet::BASE64)
        .check(Check::Random)
        .yes(&[&["aws_secret", "_access_key = ", M20, "/", "k9L8m7N6o5P4q3R2s1T"], &["\"Secret", "AccessKey\": \"", M20, "+", "k9L8m7N6o5P4q3R2s1T", "\""]]),
    token("aws-bedrock-key", "AWS_BEDROCK_KEY", "ABSK[A-Za-z0-9+/]{109,269}={0,2}")
        .yes(&[&["ABSK", "Qm", M20, M20, M20, M20, M20, M20]]),
    marked("aws-bedrock-key-short", "AWS_BEDROCK_KEY", "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=_-]{0,2048}")
        .yes(&[&["bedrock-api-key-", "YmVkcm9jay5hbWF6b25hd3MuY29t", M20]]),
    token("aws-mws-token", "AWS_MWS_TOKEN", r"amzn\.mws\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["amzn.mws.", U36]]),
    secret("azure-storage-key", "AZURE_STORAGE_KEY", r"(?i:AccountKey)[ \t]{0,2}=[ \t]{0,2}(?<secret>[A-Za-z0-9+/]{40,90}={0,2})")
        .yes(&[&["AccountKey", "=", M20, M20, M20, M20, "abcdef=="]]),
    secret("azure-shared-access-key", "AZURE_SHARED_ACCESS_KEY", "(?i:SharedAccess(?:Key|Signature)|SharedSecretValue)=(?<secret>[A-Za-z0-9+/]{43}=)")
        .yes(&[&["SharedAccessKey", "=", M20, M20, "abc="]]),
    secret("azure-app-configuration", "AZURE_SHARED_ACCESS_KEY", r#"\.azconfig\.io;Id=[^;"]{4,64};Secret=(?<secret>[A-Za-z0-9+/]{36,90}={0,2})"#)
        .yes(&[&["https://x.azconfig.io;Id=ab-l0-s0:abcd;Secret=", M20, M20, "abc="]]),
    secret("azure-sas", "AZURE_SAS_SIGNATURE", "&sig=(?<secret>[A-Za-z0-9%+/]{43,60}(?:%3D|=))")
        .check(Check::Random)
        .yes(&[&["?sv=2020&sig=", M20, M20, "abc", "%3D"]]),
    secret("azure-function-key", "AZURE_FUNCTION_KEY", r"\.azurewebsites\.net/api/[A-Za-z0-9_/-]{1,80}\?code=(?<secret>[A-Za-z0-9_/=%-]{40,60})")
        .check(Check::Random)
        .yes(&[&["https://x.azurewebsites.net/api/f?code=", M20, M20, "abc"]]),
    token("google-api-key", "GOOGLE_API_KEY", "AIza[A-Za-z0-9_-]{35}")
        .check(Check::Entropy(4.0))
        .check(Check::Unpublished)
        .yes(&[&["AIza", M20, "-_", "abcdefghijklm"]]),
    token("google-oauth-token", "GOOGLE_OAUTH_TOKEN", r"ya29\.[A-Za-z0-9_-][A-Za-z0-9_.-]{19,2048}")
        .yes(&[&["ya29", ".a0", M20]]),
    token("google-refresh-token", "GOOGLE_OAUTH_TOKEN", "1//0[A-Za-z0-9_-]{40,120}")
        .yes(&[&["1//0e", M20, M20]]),
    secret("recaptcha-secret", "RECAPTCHA_SECRET", r#"(?i:recaptcha)[ _.-]?(?i:v[23][_.-]?)?(?i:secret|private|api)[ _-]?(?i:key)?["']?[ \t]{0,3}(?:=>|[:=])[ \t]{0,3}["']?(?<secret>6L[A-Za-z0-9_-]{38})"#)
        .not_before(ByteSet::WORD)
        .yes(&[&["RECAPTCHA_SECRET_KEY=6L", "cabcdefAAAA", M20, "abcdefg"]])
        .no(&[&["recaptcha_site_key=6L", "cabcdefAAAA", M20, "abcdefg"]]),
    marked("google-client-secret", "GOOGLE_CLIENT_SECRET", "GOCSPX-[A-Za-z0-9_-]{28}")
        .yes(&[&["GOCSPX", "-", M20, "abcdefgh"]]),
    secret("google-oauth-client", "GOOGLE_CLIENT_SECRET", r#"\.apps\.googleusercontent\.com["'; ,\n\r\t]{1,6}(?:const )?[A-Za-z_ ]{0,16}(?i:secret)["']?[ \t]{0,4}[:=][ \t]{0,4}["']?(?<secret>[A-Za-z0-9_-]{24})"#)
        .not_before(ByteSet::WORD)
        .yes(&[&["x.apps.googleusercontent.com';\nconst CLIENT_", "SECRET = '", M20, "abcd'"]]),
    secret("google-service-account", "GOOGLE_SERVICE_ACCOUNT", r#""private_key_id"[ \t]{0,4}:[ \t]{0,4}"(?<secret>[0-9a-f]{40})""#)
        .yes(&[&["\"private_key", "_id\": \"", H16, H16, "01234567\""]]),
    secret("google-service-account-url", "GOOGLE_SERVICE_ACCOUNT", r#""auth_provider_x509_cert_url"[ \t]{0,4}:[ \t]{0,4}"?(?<secret>[0-9A-Fa-f]{64,512})"#)
        .yes(&[&["{\"auth_provider", "_x509_cert_url\":", H16, H16, H16, H16, "}"]]),
    token("alibaba-access-key-id", "ALIBABA_ACCESS_KEY_ID", "LTAI[A-Za-z0-9]{12,21}")
        .check(Check::Digit)
        .yes(&[&["LTAI", M20]]),
    token("tencent-secret-id", "TENCENT_SECRET_ID", "AKID[A-Za-z0-9]{32}")
        .check(Check::Random)
        .yes(&[&["AKID", M20, "ABCDefgh0123"]]),
    marked("digitalocean-token", "DIGITALOCEAN_TOKEN", "do[opr]_v1_[a-f0-9]{64}")
        .yes(&[&["dop_v1_", H16, H16, H16, H16], &["doo_v1_", H16, H16, H16, H16]]),
    marked("heroku-key", "HEROKU_API_KEY", "HRKU-[A-Za-z0-9_-]{36,64}")
        .yes(&[&["HRKU-", "AA", M20, M20, M20]]),
    marked("flyio-token", "FLYIO_TOKEN", "fo1_[A-Za-z0-9_-]{43}")
        .yes(&[&["fo1_", M20, M20, "abc"]]),
    token("flyio-macaroon", "FLYIO_TOKEN", "fm(?:1[ar]|2)_[A-Za-z0-9+/]{100,2048}={0,3}")
        .yes(&[&["fm2_", M20, M20, M20, M20, M20, M20]]),
    marked("cloudflare-origin-ca", "CLOUDFLARE_ORIGIN_CA_KEY", r"v1\.0-[a-f0-9]{20,80}-[a-f0-9]{80,200}")
        .yes(&[&["v1.0-", "0123456789abcdef01234567", "-", H16, H16, H16, H16, H16, H16, H16, H16, H16, H16]]),
    token("databricks-token", "DATABRICKS_TOKEN", "dapi[0-9a-f]{32}(?:-[0-9])?")
        .yes(&[&["dapi", H16, H16]]),
    marked("vercel-token", "VERCEL_TOKEN", "vc[pirak]_[A-Za-z0-9]{24,60}")
        .check(Check::Random)
        .yes(&[&["vcp_", M20, "abcd"]]),
    marked("render-key", "RENDER_API_KEY", "rnd_[A-Za-z0-9]{28,40}")
        .check(Check::Random)
        .yes(&[&["rnd_", M20, "abcdefgh"]]),
    token("scaleway-access-key", "SCALEWAY_ACCESS_KEY", "SCW[A-Z0-9]{17}")
        .check(Check::Digit)
        .yes(&[&["SCW", "1", A16]]),
    marked("scalingo-token", "SCALINGO_TOKEN", "tk-us-[A-Za-z0-9_-]{48}")
        .yes(&[&["tk-us-", M20, M20, "abcdefgh"]]),
    token("yandex-api-key", "YANDEX_API_KEY", "AQVN[A-Za-z0-9_-]{35,38}")
        .check(Check::Random)
        .yes(&[&["AQVN", M20, "abcdefghijklmno"]]),
    token("yandex-aws-key", "YANDEX_API_KEY", "YCA[A-Za-z0-9_-]{37}")
        .check(Check::Random)
        .yes(&[&["YCA", M20, "abcdefghijklmnopq"]]),
    token("yandex-iam-token", "YANDEX_IAM_TOKEN", r"t1\.[A-Za-z0-9_-]{1,256}={0,2}\.[A-Za-z0-9_-]{86}={0,2}")
        .yes(&[&["t1.", M20, ".", M20, M20, M20, M20, "abcdef"]]),
    marked("ibm-key", "IBM_API_KEY", "ApiKey-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .yes(&[&["ApiKey-", U36]]),
    marked("planetscale-token", "PLANETSCALE_TOKEN", "pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_=.-]{32,64}")
        .yes(&[&["pscale_tkn_", M20, M20]]),
    marked("mongodb-service-account", "MONGODB_ATLAS_KEY", "mdb_sa_sk_[A-Za-z0-9_-]{40}")
        .yes(&[&["mdb_sa_sk_", M20, M20]]),
    token("clickhouse-key", "CLICKHOUSE_KEY", "4b1d[A-Za-z0-9]{38}")
        .check(Check::Random)
        .yes(&[&["4b1d", M20, "abcdefghIJKLMNOPQR"]]),
    marked("aiven-token", "AIVEN_TOKEN", "AVNS_[A-Za-z0-9_-]{18,40}")
        .yes(&[&["AVNS_", M20]]),
    marked("supabase-key", "SUPABASE_KEY", "sb(?:p|_secret)_[A-Za-z0-9_-]{20,64}")
        .check(Check::Random)
        .yes(&[&["sbp_", H16, H16, "01234567"]]),
    marked("neon-key", "NEON_API_KEY", "napi_[a-z0-9]{60,70}")
        .yes(&[&["napi_", "abcdefghij0123456789", "abcdefghij0123456789", "abcdefghij0123456789"]]),
    token("openshift-token", "OPENSHIFT_TOKEN", "sha256~[A-Za-z0-9_+/=@.-]{16,43}")
        .yes(&[&["sha256~", M20, M20, "abc"]]),
    marked("tailscale-key", "TAILSCALE_KEY", "tskey-[a-z]{2,12}-[A-Za-z0-9_]{6,24}-[A-Za-z0-9_]{4,64}")
        .yes(&[&["tskey-auth-", "kAbCdEf123CNTRL", "-", M20]]),
    token("vault-token", "VAULT_TOKEN", r"hv[sbr]\.[A-Za-z0-9_-]{20,300}")
        .yes(&[&["hvs", ".", M20, M20]]),
    token("doppler-token", "DOPPLER_TOKEN", r"dp\.(?:ct|pt|st|sa|scim|audit|said)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}")
        .yes(&[&["dp.pt.", M20, M20, "abc"], &["dp.st.dev.", M20, M20, "abc"]]),
    token("infisical-token", "INFISICAL_TOKEN", r"st\.[0-9a-f]{8,24}-?[0-9a-f-]{0,28}\.[0-9a-f]{32}\.[0-9a-f]{32}")
        .yes(&[&["st.", U36, ".", H16, H16, ".", H16, H16]]),
    token("1password-secret-key", "ONEPASSWORD_SECRET_KEY", "A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}")
        .check(Check::Entropy(3.8))
        .yes(&[&["A3-", "ABCDE1-FGHIJ2-KLMN3-OPQR4-STUV5-WXYZ6"]]),
    marked("1password-service-token", "ONEPASSWORD_TOKEN", "ops_eyJ[A-Za-z0-9+/=]{100,2048}")
        .yes(&[&["ops_eyJ", M20, M20, M20, M20, M20]]),
    marked("pulumi-token", "PULUMI_TOKEN", "pul-[a-f0-9]{40}")
        .yes(&[&["pul-", H16, H16, "01234567"]]),
    secret("thingsboard-token", "THINGSBOARD_TOKEN", r"thingsboard\.cloud/api/v1/(?<secret>[A-Za-z0-9]{20})")
        .yes(&[&["https://thingsboard.cloud/api/v1/", M20]]),
    secret("thingsboard-provisioning", "THINGSBOARD_TOKEN", r#"sionDevice(?:Key|Secret)"[ \t]{0,3}:[ \t]{0,3}"(?<secret>[A-Za-z0-9]{20})"#)
        .yes(&[&["\"provisionDevice", "Secret\": \"", M20, "\""]]),
    secret("wireguard-key", "WIREGUARD_KEY", r"(?:eshared|vate)Key[ \t]{0,3}=[ \t]{0,3}(?<secret>[A-Za-z0-9+/]{43}=)")
        .yes(&[&["PrivateKey = ", M20, M20, "abc="]]),
    secret("blynk-token", "BLYNK_TOKEN", r"blynk\.cloud/external/api/[A-Za-z0-9/]{0,40}\?token=(?<secret>[A-Za-z0-9_-]{32})")
        .yes(&[&["https://blynk.cloud/external/api/get?token=", M20, "abcdefghijkl"]]),
    secret("blynk-client", "BLYNK_TOKEN", "oa2-client-id_[A-Za-z0-9_-]{32}(?::|&client_secret=)(?<secret>[A-Za-z0-9_-]{40})")
        .yes(&[&["oa2-client-id_", M20, "abcdefghijkl", ":", M20, M20]]),
];
