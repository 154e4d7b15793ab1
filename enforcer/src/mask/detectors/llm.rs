//! Language models and what agents use.

use super::{H16, M20, U36, marked, secret, token};
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// The table.
pub(super) static LLM: &[Detector] = &[
    token(
        "anthropic-key",
        "ANTHROPIC_API_KEY",
        "sk-ant-(?:api|sid|oat|ort|admin)[0-9]{2}-(?:[A-Za-z0-9_-]{20,59}|[A-Za-z0-9_-]{80,93}AA)",
    )
    .not_before(ByteSet::WORD.with(b"-"))
    .check(Check::Digit)
    .yes(&[&["sk-ant-", "api03-", M20, "-", M20]]),
    token(
        "openai-project-key",
        "OPENAI_API_KEY",
        "sk-(?:proj|svcacct|admin|None|service)-[A-Za-z0-9_-]{20,250}",
    )
    .check(Check::Digit)
    .yes(&[&["sk-", "proj-", M20, "_", M20], &["sk-", "svcacct-", M20]]),
    secret("openai-key", "OPENAI_API_KEY", "sk-[A-Za-z0-9]{32,128}")
        .not_after(ByteSet::LETTER)
        .check(Check::Random)
        .yes(&[&["\n", "sk-", M20, M20], &["key%3D", "sk-", M20, M20]])
        .no(&[&["ta", "sk-", M20, M20], &["sk-", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]]),
    marked("openrouter-key", "OPENROUTER_KEY", "sk-or-v[0-9]-[A-Fa-f0-9]{64}").yes(&[&[
        "sk-or-v1-",
        H16,
        H16,
        H16,
        H16,
    ]]),
    marked("langchain-key", "LANGSMITH_KEY", "ls(?:v2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}|__[a-f0-9]{32})")
        .yes(&[&["lsv2_pt_", H16, H16, "_", "0123456789"]]),
    token(
        "langfuse-key",
        "LANGFUSE_KEY",
        "[sp]k-lf-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    )
    .yes(&[&["sk-lf-", U36]]),
    token("huggingface-token", "HUGGINGFACE_TOKEN", "hf_[A-Za-z]{34}")
        .check(Check::Mixed)
        .check(Check::Entropy(3.8))
        .yes(&[&["hf_", "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"]]),
    marked("huggingface-organisation-token", "HUGGINGFACE_TOKEN", "api_org_[A-Za-z]{34}")
        .check(Check::Mixed)
        .yes(&[&["api_org_", "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"]]),
    token("replicate-token", "REPLICATE_TOKEN", "r8_[A-Za-z0-9_-]{37,64}").yes(&[&[
        "r8_",
        M20,
        "abcdefghijklmnopq",
    ]]),
    marked("groq-key", "GROQ_API_KEY", "gsk_[A-Za-z0-9]{48,56}").yes(&[&["gsk_", M20, M20, "abcdefghijkl"]]),
    marked("xai-key", "XAI_API_KEY", "xai-[A-Za-z0-9]{80}").yes(&[&["xai-", M20, M20, M20, M20]]),
    marked("perplexity-key", "PERPLEXITY_KEY", "pplx-[A-Za-z0-9]{48,56}")
        .yes(&[&["pplx-", M20, M20, "abcdefgh"]]),
    marked("nvidia-key", "NVIDIA_API_KEY", "nvapi-[A-Za-z0-9_-]{60,70}")
        .yes(&[&["nvapi-", M20, M20, M20, "abcd"]]),
    token("fireworks-key", "FIREWORKS_KEY", "fw_[A-Za-z0-9]{24}")
        .check(Check::Random)
        .check(Check::Mixed)
        .yes(&[&["fw_", M20, "abcd"]]),
    marked("together-key", "TOGETHER_KEY", "tgp_v1_[A-Za-z0-9_-]{40,64}").yes(&[&["tgp_v1_", M20, M20]]),
    marked("pinecone-key", "PINECONE_KEY", "pcsk_[A-Za-z0-9_]{50,80}").yes(&[&["pcsk_", M20, M20, M20]]),
    marked("tavily-key", "TAVILY_KEY", "tvly-(?:dev-)?[A-Za-z0-9]{32}").yes(&[&[
        "tvly-",
        M20,
        "abcdefGHIJ01",
    ]]),
    token("elevenlabs-key", "ELEVENLABS_KEY", "sk_[a-f0-9]{48}").yes(&[&["sk_", H16, H16, H16]]),
    marked("apify-token", "APIFY_TOKEN", "apify_(?:api|ui|proxy)_[A-Za-z0-9]{30,64}").yes(&[&[
        "apify_api_",
        M20,
        M20,
    ]]),
    token("firecrawl-key", "FIRECRAWL_KEY", "fc-[a-f0-9]{32}").yes(&[&["fc-", H16, H16]]),
    token("mem0-key", "MEM0_KEY", "m0-[A-Za-z0-9]{40}")
        .check(Check::Random)
        .check(Check::Mixed)
        .yes(&[&["m0-", M20, M20]]),
    token("voyage-key", "VOYAGE_KEY", "pa-[A-Za-z0-9_-]{43}")
        .check(Check::Mixed)
        .check(Check::Scrambled)
        .yes(&[&["pa-", M20, M20, "abc"]]),
    marked("cerebras-key", "CEREBRAS_KEY", "csk-[a-z0-9]{48}").yes(&[&[
        "csk-",
        "abcdefghij0123456789",
        "abcdefghij0123456789",
        "abcdefgh",
    ]]),
];
