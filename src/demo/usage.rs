//! What a call of a model uses: tokens, estimated from the lengths of texts, and their cost. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::accounts::Model;

/// Bytes of English for a token: about what the tokenizers of real models make of it.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens around each message, and around all of them, as OpenAI's guide to counting tokens has them.
const TOKENS_AROUND: u64 = 3;
/// The most beginnings of a prompt that are told apart: each is looked up.
const MAX_PREFIXES: usize = 1024;
/// What a cached token costs, as a fraction of one that is not.
const CACHE_DISCOUNT: u64 = 10;

/// The beginning of a prompt: up to the end of one of its messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    /// Equal for equal beginnings.
    pub(super) hash: u64,
    pub(super) tokens: u64,
}

/// The input tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InputTokens {
    pub(super) all: u64,
    /// Of all, those that were read from the cache.
    pub(super) cached: u64,
    /// Of all, those that were written to the cache because the request asks for it.
    pub(super) created: u64,
}

/// What a call has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: InputTokens,
    pub(super) output: u64,
    /// In nano-USD.
    pub(super) cost: u64,
}

/// Returns the beginnings of a prompt, the shortest first and all of it last: what goes before its
/// messages, then message by message.
pub(super) fn prefixes(request: &Value) -> Vec<Prefix> {
    let mut hasher = DefaultHasher::new();
    request["model"].as_str().hash(&mut hasher);
    let mut tokens = TOKENS_AROUND;
    let mut add = |part: &Value| {
        part.hash(&mut hasher);
        tokens += text_bytes(part).div_ceil(BYTES_PER_TOKEN) + TOKENS_AROUND;
        let hash = hasher.finish();
        Prefix { hash, tokens }
    };
    let instructions = ["tools", "system", "instructions"].iter();
    let instructions = instructions.filter_map(|name| request.get(name));
    let messages = ["messages", "input"]
        .iter()
        .flat_map(|name| match request.get(name) {
            Some(Value::Array(messages)) => messages.as_slice(),
            Some(text) => std::slice::from_ref(text),
            None => &[],
        });
    let mut prefixes = Vec::new();
    for part in instructions.chain(messages) {
        if prefixes.len() == MAX_PREFIXES {
            prefixes.pop();
        }
        prefixes.push(add(part));
    }
    if prefixes.is_empty() {
        prefixes.push(add(&Value::Null));
    }
    prefixes
}

/// Returns the bytes of all texts within a value, the names of members left out. Numbers are tokens
/// themselves: embeddings take them.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Number(_) => BYTES_PER_TOKEN,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(members) => members.values().map(text_bytes).sum(),
        Value::Null | Value::Bool(_) => 0,
    }
}

impl InputTokens {
    /// `cached` of `all` tokens were found in the cache; of the others, whole blocks are written to it
    /// where the request asks for that.
    pub(super) fn new(all: u64, cached: u64, asks_for_cache: bool) -> InputTokens {
        let created = match asks_for_cache {
            true => cacheable(all - cached),
            false => 0,
        };
        InputTokens {
            all,
            cached,
            created,
        }
    }

    /// Those that were neither read from the cache nor written to it.
    pub(super) fn uncached(self) -> u64 {
        self.all - self.cached - self.created
    }
}

/// Returns how many of these tokens a cache keeps: never the end of them.
pub(super) fn cacheable(tokens: u64) -> u64 {
    tokens * 3 / 4
}

impl Usage {
    pub(super) fn new(input: InputTokens, output: u64, model: &Model) -> Usage {
        let full = (input.all - input.cached) * model.input_price;
        let cached = input.cached * model.input_price / CACHE_DISCOUNT;
        Usage {
            input,
            output,
            cost: full + cached + output * model.output_price,
        }
    }

    pub(super) fn total(self) -> u64 {
        self.input.all + self.output
    }
}

/// Returns an amount in USD.
pub(super) fn usd(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MODEL: Model = Model {
        id: "m",
        input_price: 100,
        output_price: 1000,
    };

    fn tokens(request: Value) -> Vec<u64> {
        prefixes(&request).iter().map(|it| it.tokens).collect()
    }

    #[test]
    fn tokens_follow_from_the_lengths_of_the_texts() {
        let user = json!({"role": "user", "content": "x".repeat(40)});
        for (request, expected) in [
            (json!({"messages": [user]}), vec![3 + 3 + 11]),
            (json!({"input": "x".repeat(40)}), vec![3 + 3 + 10]),
            (json!({"input": [1, 2, 3]}), vec![3 + 4, 3 + 8, 3 + 12]),
            (
                json!({"system": "abcd", "messages": [user, user]}),
                vec![7, 21, 35],
            ),
            (json!({"messages": []}), vec![6]),
            (json!({}), vec![6]),
        ] {
            assert_eq!(tokens(request.clone()), expected, "{request}");
        }
        let many = tokens(json!({"messages": vec!["abcd"; 5000]}));
        assert_eq!((many.len(), many.last()), (1024, Some(&(3 + 5000 * 4))));
    }

    #[test]
    fn equal_beginnings_have_equal_hashes() {
        let hashes =
            |request: Value| -> Vec<u64> { prefixes(&request).iter().map(|it| it.hash).collect() };
        let short = hashes(json!({"model": "m", "messages": ["a", "b"]}));
        let long = hashes(json!({"model": "m", "messages": ["a", "b", "c"], "stream": true}));
        assert_eq!(short, long[..2]);
        let other = hashes(json!({"model": "n", "messages": ["a", "b"]}));
        assert!(short.iter().all(|hash| !other.contains(hash)));
    }

    #[test]
    fn cached_tokens_cost_a_tenth() {
        let input = InputTokens::new(100, 60, false);
        assert_eq!(Usage::new(input, 2, &MODEL).cost, 4000 + 600 + 2000);
        let created = InputTokens::new(100, 60, true);
        assert_eq!((created.created, created.uncached()), (30, 10));
    }
}
