//! What must hold for any arguments of any method. The fuzz target and the suite's property test call this.

use super::table::METHODS;
use serde_json::{Map, Value};

/// The arguments of a request, a JSON object. Every method accepts or refuses them, and a refusal is short and names the method.
pub fn method_args(data: &[u8]) {
    let Ok(args) = serde_json::from_slice::<Map<String, Value>>(data) else {
        return;
    };
    for entry in METHODS {
        let Some(built) = &entry.built else { continue };
        let Err(error) = (built.check)(&args) else { continue };
        let message = error.failure().message;
        assert!(
            message.contains(entry.name) && message.len() < 2000,
            "a refusal of {}",
            entry.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("name|_name|_host|_password|_databases|[a-z]{1,6}", inner, 0..4)
                    .prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_arguments_are_accepted_or_refused(choice in 0..METHODS.len(), values in proptest::collection::vec(value(), 16)) {
            // The right names, so that the types are looked at.
            let names = METHODS[choice].built.as_ref().map_or(&[][..], |built| built.args);
            let args: Map<String, Value> = names.iter().map(|arg| arg.name.to_owned()).zip(values).collect();
            method_args(Value::Object(args).to_string().as_bytes());
        }
    }
}
