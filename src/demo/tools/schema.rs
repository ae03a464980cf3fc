//! Placeholder values that fit a JSON Schema (draft 2020-12), as far as one can without solving it: no
//! patterns, no conditions. Pure.

use serde_json::{Map, Value, json};

/// The deepest nesting that is followed: schemas may refer to themselves.
const MAX_DEPTH: usize = 16;
/// The size of all values together, in bytes of JSON: a small schema can ask for a huge value.
const MAX_BYTES: usize = 64 * 1024;

const TEXT: &str = "example";

/// Strings for the formats that tools use (section 7.3 of the validation vocabulary).
const FORMATS: [(&str, &str); 6] = [
    ("date-time", "2024-01-15T10:30:00Z"),
    ("date", "2024-01-15"),
    ("time", "10:30:00Z"),
    ("email", "user@example.com"),
    ("uri", "https://example.com/"),
    ("uuid", "00000000-0000-4000-8000-000000000000"),
];

/// Returns a value that fits `schema`. Objects have their required properties only.
pub(super) fn placeholder(schema: &Value) -> Value {
    Generator {
        root: schema,
        bytes_left: MAX_BYTES,
    }
    .value(schema, MAX_DEPTH)
}

struct Generator<'a> {
    /// What `$ref` refers to.
    root: &'a Value,
    bytes_left: usize,
}

impl<'a> Generator<'a> {
    /// Returns null where the schema is too deep or its value too large.
    fn value(&mut self, schema: &'a Value, depth: usize) -> Value {
        let depth = match depth.checked_sub(1) {
            Some(depth) if self.spend(1) => depth,
            _ => return Value::Null,
        };
        let named = ["const", "default"].iter().find_map(|key| schema.get(key));
        let listed = || {
            let mut lists = ["enum", "examples"].iter();
            lists.find_map(|key| schema.get(key)?.as_array()?.first())
        };
        if let Some(given) = named.or_else(listed) {
            return match self.spend(given.to_string().len()) {
                true => given.clone(),
                false => Value::Null,
            };
        }
        if let Some(schema) = self.referenced(schema).or_else(|| alternative(schema)) {
            return self.value(schema, depth);
        }
        let value = match type_of(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" | "number" => number(schema),
            "boolean" => false.into(),
            "null" => Value::Null,
            _ => self.string(schema),
        };
        self.with_all_of(value, schema, depth)
    }

    /// Takes from what is left; returns whether it was enough.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Returns the schema that a `$ref` within the same document names.
    fn referenced(&self, schema: &Value) -> Option<&'a Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let mut object = Map::new();
        for name in items(schema, "required").iter().filter_map(Value::as_str) {
            if !self.spend(name.len() + 1) {
                break;
            }
            let property = schema.get("properties").and_then(|all| all.get(name));
            let value = property.map_or(TEXT.into(), |schema| self.value(schema, depth));
            object.insert(name.to_owned(), value);
        }
        object.into()
    }

    fn array(&mut self, schema: &'a Value, depth: usize) -> Value {
        let length = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let tuple = items(schema, "prefixItems");
        let rest = schema.get("items").unwrap_or(&Value::Null);
        let mut array = Vec::new();
        while (array.len() as u64) < length && self.spend(1) {
            let schema = tuple.get(array.len()).unwrap_or(rest);
            array.push(self.value(schema, depth));
        }
        array.into()
    }

    fn string(&mut self, schema: &Value) -> Value {
        let format = schema.get("format").and_then(Value::as_str);
        let known = FORMATS.iter().find(|(name, _)| format == Some(name));
        let mut text = known.map_or(TEXT, |(_, text)| text).to_owned();
        let limit = |key| {
            let limit = schema.get(key).and_then(Value::as_u64)?;
            usize::try_from(limit).ok()
        };
        let shortest = limit("minLength").unwrap_or(0);
        if !self.spend(shortest.max(text.len())) {
            return Value::Null;
        }
        while text.len() < shortest {
            text.push('x');
        }
        text.truncate(limit("maxLength").unwrap_or(usize::MAX));
        text.into()
    }

    /// Adds the properties that the schemas of `allOf` require.
    fn with_all_of(&mut self, value: Value, schema: &'a Value, depth: usize) -> Value {
        let mut value = value;
        for part in items(schema, "allOf") {
            match (&mut value, self.value(part, depth)) {
                (Value::Object(object), Value::Object(more)) => object.extend(more),
                (_, other) => value = other,
            }
        }
        value
    }
}

/// Returns the first alternative of `anyOf` or `oneOf`; null only if there is no other.
fn alternative(schema: &Value) -> Option<&Value> {
    let alternatives = ["anyOf", "oneOf"]
        .iter()
        .map(|key| items(schema, key))
        .find(|alternatives| !alternatives.is_empty())?;
    let other_than_null = alternatives.iter().find(|it| type_of(it) != "null");
    other_than_null.or(alternatives.first())
}

/// Returns the type that a schema names, the first of several; else the one that its keywords are for.
fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => return name,
        Some(Value::Array(names)) => {
            let mut names = names.iter().filter_map(Value::as_str);
            return names.find(|name| *name != "null").unwrap_or("null");
        }
        _ => {}
    }
    let has = |key: &&str| schema.get(key).is_some();
    if ["properties", "required", "allOf"].iter().any(has) {
        "object"
    } else if ["items", "prefixItems"].iter().any(has) {
        "array"
    } else {
        "string"
    }
}

fn items<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    let list = schema.get(key).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Returns the number closest to 1 within the schema's limits, whole where it can be.
fn number(schema: &Value) -> Value {
    let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
    let least = limit("minimum").or(limit("exclusiveMinimum").map(|least| least + 1.0));
    let most = limit("maximum").or(limit("exclusiveMaximum").map(|most| most - 1.0));
    let mut number = 1.0_f64;
    if let Some(most) = most {
        number = number.min(most);
    }
    if let Some(least) = least {
        number = number.max(least);
    }
    if let Some(step) = limit("multipleOf").filter(|step| *step > 0.0) {
        number = (number / step).ceil() * step;
    }
    if type_of(schema) == "integer" {
        number = number.ceil();
    }
    // An integer beyond 2^53 is not exact as a JSON number either.
    match number.fract() == 0.0 && number.abs() < 9e15 {
        true => json!(number as i64),
        false => json!(number),
    }
}

#[cfg(test)]
mod tests;
