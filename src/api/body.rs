//! A request's body as JSON.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::refusal::Refusal;
use super::{Problem, Request};

/// What a body of JSON is called.
pub(super) const JSON: &str = "application/json";
/// The same of a change to a part (RFC 7396).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// The object in the body, which must be of one of `types`.
pub(super) fn object(request: &Request, types: &[&str]) -> Result<Map<String, Value>, Refusal> {
    let sent = request.header("content-type").unwrap_or_default();
    let sent = sent.split(';').next().unwrap_or_default().trim();
    if !types.iter().any(|wanted| wanted.eq_ignore_ascii_case(sent)) {
        let detail = format!("the body must be of Content-Type {}", types.join(" or "));
        return Err(Problem::new(415, detail).into());
    }
    match parse(&request.body)? {
        Value::Object(object) => Ok(object),
        _ => Err(Refusal::of_field("", "the body must be an object")),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let Unique(value) = serde_json::from_slice(body).map_err(|error| {
        // It says where, as "at line 1 column 2".
        Problem::new(400, format!("the body is no readable JSON: {error}"))
    })?;
    Ok(value)
}

/// A value in which no object has a name twice: readers differ in which of them counts.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // 60.0 is a whole number in JSON Schema. Up to 2^53 all are exact.
        let is_whole = value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value);
        let whole = is_whole.then(|| Number::from(value as u64));
        Ok(whole.or_else(|| Number::from_f64(value)).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("'{name}' is there twice")));
            }
            let Unique(value) = map.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_and_faults_have_a_place() {
        let text = r#"{"a": [1, -2, 2.5, 60.0, "x", true, null, {"b": 1}]}"#;
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value.to_string(), r#"{"a":[1,-2,2.5,60,"x",true,null,{"b":1}]}"#);
        for (bad, expect) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"a\": 1,\n \"a\": 2}", "'a' is there twice at line 2 column 4"),
            ("{\"a\": {\"b\": 1, \"b\": 1}}", "'b' is there twice"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("[1e999]", "number out of range"),
        ] {
            let refusal = parse(bad.as_bytes()).unwrap_err().response();
            let text = String::from_utf8(refusal.body).unwrap();
            assert!(refusal.status == 400 && text.contains(expect), "{bad}: {text}");
        }
    }
}
