//! Arguments of a request: names first, then types. Errors name the argument and never show its value.

use super::failure::{ErrorClass, RpcError};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;

/// One argument a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg {
    /// Name on the wire.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
}

/// An argument that must be there.
#[must_use]
pub const fn required(name: &'static str) -> Arg {
    Arg { name, required: true }
}

/// An argument that may be absent or null.
#[must_use]
pub const fn optional(name: &'static str) -> Arg {
    Arg { name, required: false }
}

/// Checks the names as Python would, in Python's words: that is what upstream's callers see from upstream's agent.
pub fn check_names(method: &str, known: &[Arg], args: &Map<String, Value>) -> Result<(), RpcError> {
    if let Some(name) = args.keys().find(|name| !known.iter().any(|arg| arg.name == name.as_str())) {
        let name: String = name.chars().take(64).collect();
        let text = format!("Manager.{method}() got an unexpected keyword argument '{name}'");
        return Err(RpcError::new(ErrorClass::Type, text));
    }
    let missing: Vec<_> = known
        .iter()
        .filter(|arg| arg.required && !args.contains_key(arg.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing
        .iter()
        .map(|arg| format!("'{}'", arg.name))
        .collect::<Vec<_>>()
        .join(" and ");
    let (count, plural) = (missing.len(), if missing.len() == 1 { "" } else { "s" });
    let text = format!("Manager.{method}() missing {count} required positional argument{plural}: {names}");
    Err(RpcError::new(ErrorClass::Type, text))
}

/// Decodes the arguments of a method.
pub fn decode<A: DeserializeOwned>(method: &str, args: Map<String, Value>) -> Result<A, RpcError> {
    serde_path_to_error::deserialize(Value::Object(args)).map_err(|error| {
        let path = error.path().to_string();
        let what = match error.inner().classify() {
            serde_json::error::Category::Data => "has a wrong type or value",
            _ => "cannot be read",
        };
        RpcError::new(ErrorClass::Type, format!("Manager.{method}() argument '{path}' {what}"))
    })
}

/// A JSON object and nothing else: serde would take an array for a struct as well, its items in the order of the fields, and
/// a list of names would rename a user.
#[derive(Debug, Clone)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn unknown_and_missing_arguments_are_named_as_python_names_them() {
        let known = [required("databases"), optional("limit")];
        let error = check_names("restart", &known, &map(json!({"databases": 1, "unknown": 1}))).unwrap_err();
        assert_eq!(
            error.chain(),
            "Manager.restart() got an unexpected keyword argument 'unknown'"
        );
        let error = check_names("grant", &known, &map(json!({}))).unwrap_err();
        assert_eq!(
            error.chain(),
            "Manager.grant() missing 1 required positional argument: 'databases'"
        );
    }

    #[test]
    fn a_list_is_no_object_also_where_its_items_would_fit() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Attributes {
            #[serde(default)]
            name: Option<String>,
        }
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Args {
            attrs: Vec<Object<Attributes>>,
        }
        for (bad, place) in [(json!([["bob"]]), "attrs[0]"), (json!([{"name": 1}]), "attrs[0].name")] {
            let error = decode::<Args>("update", map(json!({"attrs": bad}))).unwrap_err().chain();
            assert_eq!(
                error,
                format!("Manager.update() argument '{place}' has a wrong type or value")
            );
        }
        assert!(decode::<Args>("update", map(json!({"attrs": [{"name": "bob"}, {}]}))).is_ok());
    }

    #[test]
    fn a_wrong_type_is_named_but_its_value_is_not_shown() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Args {
            users: Vec<u64>,
        }
        let error = decode::<Args>("create_user", map(json!({"users": ["hunter2"]}))).unwrap_err();
        assert_eq!(
            error.chain(),
            "Manager.create_user() argument 'users[0]' has a wrong type or value"
        );
    }
}
