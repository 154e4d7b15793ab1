//! How many tokens an answer says that it took; and how many it was at most, if it does not say.
//!
//! The numbers are looked for by their names, wherever they stand: what frames an answer (events,
//! lines, a list, one piece) and what packs them differ, and the names do not. Of a number that
//! comes again the greatest counts: in a stream each is of all that came before it. So an answer
//! that has such a name in what it says can only make it more.
//!
//! **The estimate is never less than what is seen.** A token is a byte or more; one is counted for
//! each byte of every name and text, and of what stands between them. What every event repeats of
//! its API around the text is left out.

/// The longest name that is looked at.
const NAME_BYTES: usize = 32;
/// So much of a value that is no text is left out of the estimate.
const PLAIN_BYTES: u64 = 64;

/// Names whose values are of the API and no text.
const PLAIN: [&str; 31] = [
    "created",
    "created_at",
    "content_index",
    "done",
    "done_reason",
    "eval_duration",
    "finishReason",
    "finish_reason",
    "id",
    "index",
    "item_id",
    "load_duration",
    "logprobs",
    "model",
    "modelVersion",
    "object",
    "obfuscation",
    "output_index",
    "prompt_eval_duration",
    "responseId",
    "response_id",
    "role",
    "sequence_number",
    "service_tier",
    "status",
    "stop_reason",
    "stop_sequence",
    "system_fingerprint",
    "total_duration",
    "tool_call_id",
    "type",
];
/// Names around a text.
const AROUND: [&str; 18] = [
    "arguments",
    "candidates",
    "choices",
    "content",
    "content_block",
    "delta",
    "function",
    "item",
    "message",
    "name",
    "output",
    "partial_json",
    "parts",
    "refusal",
    "response",
    "text",
    "thinking",
    "tool_calls",
];

/// A number of tokens.
#[derive(Debug, Clone, Copy)]
enum Count {
    Input,
    CacheWritten,
    CacheRead,
    /// What tools of the provider put in.
    ToolInput,
    Thoughts,
    Output,
    Total,
}

impl Count {
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"prompt_tokens" | b"input_tokens" | b"promptTokenCount" | b"prompt_eval_count"
            | b"inputTokens" => Self::Input,
            b"cache_creation_input_tokens" | b"cacheWriteInputTokens" => Self::CacheWritten,
            b"cache_read_input_tokens" | b"cacheReadInputTokens" => Self::CacheRead,
            b"toolUsePromptTokenCount" => Self::ToolInput,
            b"thoughtsTokenCount" => Self::Thoughts,
            b"completion_tokens"
            | b"output_tokens"
            | b"candidatesTokenCount"
            | b"eval_count"
            | b"outputTokens" => Self::Output,
            b"total_tokens" | b"totalTokenCount" | b"totalTokens" => Self::Total,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    String {
        escaped: bool,
    },
    Number,
}

/// The beginning of a name, and how long all of it was.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    begin: [u8; NAME_BYTES],
    length: u64,
}

impl Word {
    fn push(&mut self, byte: u8) {
        if let Some(place) = usize::try_from(self.length).ok().and_then(|at| self.begin.get_mut(at)) {
            *place = byte;
        }
        self.length += 1;
    }

    /// All of it, if it is short enough.
    fn name(&self) -> &[u8] {
        usize::try_from(self.length).ok().and_then(|length| self.begin.get(..length)).unwrap_or_default()
    }

    fn is_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| name.as_bytes() == self.name())
    }
}

/// Reads one answer as it comes.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    at: At,
    word: Word,
    /// A text whose end was seen: a name, if a colon follows.
    text: Option<Word>,
    /// The name whose value comes.
    name: Option<Word>,
    number: u64,
    counts: [Option<u64>; 7],
    estimate: u64,
}

impl Usage {
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied() {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        match self.at {
            At::String { escaped } => match byte {
                // A text does not go over the end of a line.
                b'\n' | b'\r' => self.end_of_text(),
                b'"' if !escaped => self.end_of_text(),
                _ => {
                    self.word.push(byte);
                    self.at = At::String { escaped: byte == b'\\' && !escaped };
                }
            },
            At::Number if byte.is_ascii_digit() => {
                self.number = self.number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                self.word.length += 1;
            }
            At::Number => {
                self.end_of_number();
                self.outside(byte);
            }
            At::Outside => self.outside(byte),
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b':' => {
                if let Some(name) = self.text.take() {
                    if Count::of(name.name()).is_none() && !name.is_of(&PLAIN) && !name.is_of(&AROUND) {
                        self.spend(name.length + 2);
                    }
                    self.name = Some(name);
                }
            }
            b'"' => {
                self.value();
                self.word = Word::default();
                self.at = At::String { escaped: false };
            }
            b'0'..=b'9' => {
                self.word = Word { length: 1, ..Word::default() };
                self.number = u64::from(byte - b'0');
                self.at = At::Number;
            }
            b'{' | b'}' | b']' => {
                self.value();
                self.name = None;
                self.spend(1);
            }
            b'[' | b',' => {
                self.value();
                self.spend(1);
            }
            _ => {}
        }
    }

    fn end_of_text(&mut self) {
        self.at = At::Outside;
        self.text = Some(self.word);
    }

    /// The text before was no name.
    fn value(&mut self) {
        let Some(text) = self.text.take() else { return };
        let plain = self.name.is_some_and(|name| name.is_of(&PLAIN));
        self.spend((text.length + 2).saturating_sub(if plain { PLAIN_BYTES + 2 } else { 0 }));
    }

    fn end_of_number(&mut self) {
        self.at = At::Outside;
        let count = self.name.and_then(|name| Count::of(name.name()));
        match count {
            Some(count) => {
                let place = &mut self.counts[count as usize];
                *place = Some(place.unwrap_or_default().max(self.number));
            }
            None => {
                let plain = self.name.is_some_and(|name| name.is_of(&PLAIN));
                self.spend(self.word.length.saturating_sub(if plain { PLAIN_BYTES } else { 0 }));
            }
        }
    }

    fn spend(&mut self, tokens: u64) {
        self.estimate = self.estimate.saturating_add(tokens);
    }

    fn count(&self, count: Count) -> Option<u64> {
        self.counts[count as usize]
    }

    /// The tokens of what was asked, if the answer says it.
    fn input(&self) -> Option<u64> {
        let beside = [Count::CacheWritten, Count::CacheRead, Count::ToolInput];
        let beside = beside.into_iter().filter_map(|count| self.count(count));
        Some(beside.fold(self.count(Count::Input)?, u64::saturating_add))
    }

    fn output(&self) -> Option<u64> {
        Some(self.count(Count::Output)?.saturating_add(self.count(Count::Thoughts).unwrap_or_default()))
    }

    /// All tokens, as an answer that has ended says it.
    pub fn told(mut self) -> Option<u64> {
        if self.at == At::Number {
            self.end_of_number();
        }
        let sum = self.input().zip(self.output()).map(|(input, output)| input.saturating_add(output));
        sum.max(self.count(Count::Total))
    }

    /// At most so many: of what was asked by its bytes, if the answer does not say, and of what
    /// was answered by what came.
    pub fn at_most(mut self, asked_bytes: u64) -> u64 {
        match self.at {
            At::String { .. } => self.end_of_text(),
            At::Number => self.end_of_number(),
            At::Outside => {}
        }
        self.value();
        let output = self.output().unwrap_or_default().max(self.estimate);
        let sum = self.input().unwrap_or(asked_bytes).saturating_add(output);
        sum.max(self.count(Count::Total).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Usage {
        let mut usage = Usage::default();
        usage.push(text.as_bytes());
        usage
    }

    const ANSWERS: [(&str, u64); 9] = [
        // OpenAI: chat, in one piece and in a stream; embeddings; Responses.
        (
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":3}}}"#,
            21,
        ),
        (
            "data: {\"choices\":[{\"delta\":{\"content\":\"a \\\"total_tokens\\\":7\"}}],\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\": 4,\"completion_tokens\" :5}}\n\ndata: [DONE]\n\n",
            9,
        ),
        (r#"{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}"#, 8),
        (
            "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":36,\"output_tokens\":87,\"total_tokens\":123}}}\n\n",
            123,
        ),
        // Anthropic.
        (
            "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":1000,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n",
            1140,
        ),
        // Gemini, as a list.
        (
            "[{\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":1,\"totalTokenCount\":6}},\n{\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":7,\"thoughtsTokenCount\":30,\"totalTokenCount\":42}}]",
            42,
        ),
        // Ollama.
        (
            "{\"message\":{\"content\":\"x\"},\"done\":false}\n{\"done\":true,\"prompt_eval_count\":26,\"eval_count\":298}\n",
            324,
        ),
        (r#"{"output":{},"usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658}}"#, 658),
        // A number that ends with the answer.
        ("\"total_tokens\":77", 77),
    ];

    #[test]
    fn each_api_tells_what_it_took_however_it_is_cut() {
        for (text, want) in ANSWERS {
            assert_eq!(read(text).told(), Some(want), "{text}");
            for cut in 0..=text.len() {
                let (mut usage, bytes) = (Usage::default(), text.as_bytes());
                usage.push(&bytes[..cut]);
                usage.push(&bytes[cut..]);
                assert_eq!(usage.told(), Some(want), "{cut} {text}");
            }
        }
    }

    #[test]
    fn what_says_a_part_or_nothing_says_nothing() {
        for text in [
            "",
            r#"{"usage":null}"#,
            r#"{"usage":{"prompt_tokens":9}}"#,
            r#"{"input_tokens":14}"#,
            r#"{"content":"\"total_tokens\": 9"}"#,
            r#"{"total_tokens":"9"}"#,
        ] {
            assert_eq!(read(text).told(), None, "{text}");
        }
    }

    #[test]
    fn the_estimate_is_never_less_than_the_bytes_that_are_said() {
        let said = "Hello, \u{fc}ber! ".repeat(50);
        let whole = serde_json::json!({ "id": "chatcmpl-1", "object": "chat.completion", "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": said } }] });
        let estimate = read(&whole.to_string()).at_most(100);
        let most = u64::try_from(said.len()).unwrap();
        assert!((most + 100..most + 200).contains(&estimate), "{estimate}");
        // In pieces it is more, but not by all that is around each.
        let pieces: String = said
            .chars()
            .map(|letter| {
                let delta = serde_json::json!({ "content": letter.to_string() });
                let chunk = serde_json::json!({ "id": "chatcmpl-1234567890", "object": "chat.completion.chunk",
                    "created": 1_694_268_190, "model": "gpt-x", "system_fingerprint": "fp_44709d6fcb",
                    "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }] });
                format!("data: {chunk}\n\n")
            })
            .collect();
        let estimate = read(&pieces).at_most(0);
        assert!(estimate >= most && estimate < 30 * most, "{estimate}");
        // A long text under the name of something short counts.
        let long = serde_json::json!({ "args": { "id": "x".repeat(1_000) } }).to_string();
        assert!(read(&long).at_most(0) >= 1_000 - PLAIN_BYTES);
        let nested = serde_json::json!({ "args": { "a": [1, 22, 333], "b": { "c": "d" } } }).to_string();
        assert!(read(&nested).at_most(0) >= 18, "{}", read(&nested).at_most(0));
        // What breaks off counts as far as it came, and nothing twice.
        assert_eq!(read("\"0123456789").at_most(0), 12);
        assert_eq!(read("\"0123456789\"").at_most(0), 12);
        assert_eq!(read("\"a\":0123456789").at_most(0), 13);
    }

    #[test]
    fn what_was_asked_is_counted_as_the_answer_says_if_it_says() {
        let start =
            "data: {\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":75,\"output_tokens\":1}}\n\n";
        let text = "data: {\"delta\":{\"text\":\"0123456789\"}}\n\n";
        let broken = read(&[start, text].concat()).at_most(9_999);
        assert!((110..150).contains(&broken), "{broken}");
        assert!(read(text).at_most(9_999) >= 10_009);
        assert_eq!(read("{\"total_tokens\":99999}").at_most(1), 99_999);
        let huge = format!("{{\"prompt_tokens\":{}9,\"completion_tokens\":{}}}", u64::MAX, u64::MAX);
        assert_eq!(read(&huge).told(), Some(u64::MAX));
    }
}
