//! Protobuf against bytes that upstream's own Go encoder wrote, and properties of the decoders: objects of every kind
//! come back from protobuf as they went in, and no input makes a decoder panic.

use base64::Engine as _;
use codec::proto::{decode_object, encode_object};
use codec::{Form, json, normal, yaml};
use kinds::types::{self, Field, MessageId, Scalar, Shape};
use proptest::prelude::*;
use serde_json::{Map, Value};

const RECORDED: &str = include_str!("protobuf.jsonl");

/// Go writes every zero that a struct holds; our readers and theirs take absence for it, and JSON's null with it.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn what_go_encodes_we_read_and_write_again() {
    for line in RECORDED.lines() {
        let mut case: Value = serde_json::from_str(line).expect("a case is JSON");
        let name = case["name"].to_string();
        let mut want = case["object"].take();
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(case["pb"].as_str().unwrap_or("")).expect("base64");
        let (_, mut decoded) = decode_object(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, mut again) = decode_object(&encode_object(&decoded).expect(&name)).expect(&name);
        for value in [&mut want, &mut decoded, &mut again] {
            without_nulls(value);
        }
        assert_eq!(decoded, want, "{name}");
        assert_eq!(again, want, "{name}: written again");
    }
}

/// Any value of a type, small. `fuel` bounds how deep and wide it gets.
fn value_of(scalar: Scalar, seed: &mut u64, fuel: usize) -> Value {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let n = (*seed >> 33) as i64;
    match scalar {
        Scalar::String => format!("s{}", n % 100).into(),
        Scalar::Int32 => ((n % 2_000_001) - 1_000_000).into(),
        Scalar::Int64 => (n * 1_000 - (1 << 40)).into(),
        Scalar::Bool => (n % 2 == 0).into(),
        Scalar::Double => (n as f64 / 8.0).into(),
        Scalar::Bytes => base64::engine::general_purpose::STANDARD.encode(n.to_le_bytes()).into(),
        Scalar::Time => meta::time::format(jiff::Timestamp::from_second(n).expect("in range")).into(),
        Scalar::MicroTime => {
            meta::time::format_micro(jiff::Timestamp::from_microsecond(n * 1_001).expect("in range")).into()
        }
        Scalar::Quantity => format!("{}m", n % 999 + 1).into(),
        Scalar::IntOrString if n % 2 == 0 => (n % 1_000).into(),
        Scalar::IntOrString => format!("{}%", n % 100).into(),
        Scalar::RawExtension | Scalar::FieldsV1 | Scalar::Json => serde_json::json!({"a": [n, null, "x"]}),
        Scalar::SchemaOrBool => true.into(),
        Scalar::SchemaOrArray => schema(seed, fuel),
        Scalar::SchemaOrStrings => serde_json::json!(["a", "b"]),
        Scalar::Any => Value::Null,
        Scalar::Message(id) => message_of(id, seed, fuel),
    }
}

fn schema(seed: &mut u64, fuel: usize) -> Value {
    types::find("apiextensions.v1.JSONSchemaProps").map_or(Value::Null, |id| message_of(id, seed, fuel))
}

fn message_of(id: MessageId, seed: &mut u64, fuel: usize) -> Value {
    let mut map = Map::new();
    for field in types::message(id).fields.iter().filter(|f| !f.path.is_empty()) {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let deep = matches!(field.scalar, Scalar::Message(_) | Scalar::SchemaOrArray);
        if (deep && fuel == 0) || (*seed >> 40).is_multiple_of(3) {
            continue;
        }
        map.insert(field.name.to_owned(), shaped(field, seed, fuel.saturating_sub(1)));
    }
    Value::Object(map)
}

fn shaped(field: &Field, seed: &mut u64, fuel: usize) -> Value {
    let mut one = || value_of(field.scalar, seed, fuel);
    match field.shape {
        Shape::One => one(),
        Shape::List | Shape::WrappedList => Value::Array(vec![one(), one()]),
        Shape::Map => Value::Object([("k".to_owned(), one()), ("l".to_owned(), one())].into_iter().collect()),
        Shape::MapOfWrappedLists => serde_json::json!({"k": [one()]}),
    }
}

#[test]
fn objects_of_every_kind_come_back_from_protobuf() {
    for (n, kind) in kinds::ALL.iter().enumerate() {
        let id = kind.message.expect("a built-in kind");
        for round in 0..4u64 {
            let mut seed = n as u64 * 1_000 + round;
            let mut object = message_of(id, &mut seed, 5);
            object["apiVersion"] = kind.api_version().into();
            object["kind"] = kind.kind.as_ref().into();
            normal::normalize(&mut object, id);
            let bytes = encode_object(&object).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            let (_, mut back) = decode_object(&bytes).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            without_nulls(&mut object);
            without_nulls(&mut back);
            assert_eq!(back, object, "{kind:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_protobuf_makes_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), n in 0usize..72) {
        let kind = &kinds::ALL[n];
        let body = codec::proto::wrap(&kind.api_version(), &kind.kind, &bytes);
        let _ = decode_object(&body);
        let _ = decode_object(&bytes);
    }

    #[test]
    fn no_broken_object_makes_a_decoder_panic(at in 0usize..4000, with in any::<u8>(), n in 0usize..40) {
        let line = RECORDED.lines().nth(n).unwrap_or("{}");
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        let mut bytes = base64::engine::general_purpose::STANDARD.decode(case["pb"].as_str().unwrap_or("")).expect("base64");
        let at = at % bytes.len().max(1);
        bytes[at] = with;
        let _ = decode_object(&bytes);
    }

    #[test]
    fn no_text_makes_a_decoder_panic(text in "[ -~\\n]{0,200}", n in 0usize..72) {
        let form = Form::Typed(kinds::ALL[n].message.expect("a built-in kind"));
        let _ = json::decode(text.as_bytes(), form);
        let _ = yaml::decode(text.as_bytes(), form);
        let _ = yaml::decode(text.as_bytes(), Form::Custom);
    }
}

/// The nearest number but one was stored: `9007199254740991.0` as `9007199254740990.0`.
#[test]
fn a_number_with_a_fraction_keeps_its_last_digit() {
    for text in ["9007199254740991.0", "123456.78901234567", "1.7976931348623157e308", "5e-324", "0.1"] {
        let read: Value = serde_json::from_str(text).expect("a number");
        assert_eq!(read.as_f64(), text.parse::<f64>().ok(), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&read.to_string()).expect("a number"), read);
    }
}
