use super::*;

#[test]
fn required_properties_get_a_value_of_their_type() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 3},
            "share": {"type": "number", "maximum": 0.5},
            "metric": {"type": "boolean"},
            "unit": {"enum": ["C", "F"]},
            "note": {"type": ["null", "string"]},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "pair": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "optional": {"type": "string"},
        },
        "required": ["city", "days", "share", "metric", "unit", "note", "where", "tags", "pair", "more"],
    });
    let expected = json!({
        "city": "example", "days": 3, "share": 0.5, "metric": false, "unit": "C", "note": "example",
        "where": {"lat": 1}, "tags": [], "pair": [1, 1], "more": "example",
    });
    assert_eq!(placeholder(&schema), expected);
}

#[test]
fn a_value_that_the_schema_gives_is_taken() {
    for (schema, expected) in [
        (json!({"const": 7}), json!(7)),
        (json!({"type": "string", "default": "x"}), json!("x")),
        (json!({"enum": [null, 1]}), json!(null)),
        (json!({"type": "string", "examples": ["y"]}), json!("y")),
    ] {
        assert_eq!(placeholder(&schema), expected, "{schema}");
    }
}

#[test]
fn limits_of_strings_and_numbers_are_kept() {
    for (schema, expected) in [
        (
            json!({"type": "string", "minLength": 9}),
            json!("examplexx"),
        ),
        (json!({"type": "string", "maxLength": 3}), json!("exa")),
        (
            json!({"type": "string", "format": "date"}),
            json!("2024-01-15"),
        ),
        (json!({"type": "integer", "exclusiveMinimum": 4}), json!(5)),
        (json!({"type": "integer", "maximum": -2}), json!(-2)),
        (
            json!({"type": "integer", "multipleOf": 5, "minimum": 7}),
            json!(10),
        ),
        (json!({"type": "number", "minimum": 1e300}), json!(1e300)),
    ] {
        assert_eq!(placeholder(&schema), expected, "{schema}");
    }
}

#[test]
fn references_and_combined_schemas_are_followed() {
    let schema = json!({
        "$defs": {"City": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
        "type": "object",
        "properties": {
            "from": {"$ref": "#/$defs/City"},
            "at": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
            "via": {"allOf": [{"$ref": "#/$defs/City"}, {"required": ["zip"], "properties": {"zip": {"type": "integer"}}}]},
        },
        "required": ["from", "at", "via"],
    });
    let expected =
        json!({"from": {"name": "example"}, "at": 1, "via": {"name": "example", "zip": 1}});
    assert_eq!(placeholder(&schema), expected);
}

#[test]
fn schemas_without_an_end_and_of_no_sense_get_some_small_value() {
    let item = json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1_000_000_000_u64});
    let object = json!({"properties": {"self": {"$ref": "#"}}, "required": ["self"]});
    let text = json!({"type": "string", "minLength": u64::MAX});
    let large = json!({"type": "array", "items": {"default": "x".repeat(1000)}, "minItems": 1000});
    for schema in [item, object, text, large] {
        let value = placeholder(&schema).to_string();
        assert!(value.len() < 4 * MAX_BYTES, "{} bytes", value.len());
    }
    for schema in [
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!({"type": 1}),
        json!("x"),
    ] {
        assert_eq!(placeholder(&schema), "example", "{schema}");
    }
    for schema in [
        json!({"enum": []}),
        json!({"$ref": "#/nothing"}),
        json!({"anyOf": 1}),
    ] {
        assert_eq!(placeholder(&schema), "example", "{schema}");
    }
}
