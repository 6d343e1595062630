//! Fields of a record that this version does not know: a newer version beside it has written them, and
//! they are written again with what this version changes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroize as _;

/// Such fields by their names. As a rule there are none. Wiped on drop, as they may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnknownFields(Option<Box<Map<String, Value>>>);

impl From<Map<String, Value>> for UnknownFields {
    fn from(fields: Map<String, Value>) -> Self {
        Self((!fields.is_empty()).then(|| Box::new(fields)))
    }
}

impl Serialize for UnknownFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().flat_map(|fields| fields.iter()))
    }
}

impl<'de> Deserialize<'de> for UnknownFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

/// Names none of them and shows no value.
impl fmt::Debug for UnknownFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fields", self.0.as_ref().map_or(0, |fields| fields.len()))
    }
}

impl Drop for UnknownFields {
    fn drop(&mut self) {
        self.0.iter_mut().flat_map(|fields| fields.values_mut()).for_each(wipe);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_however_often_it_is_written() {
        let digits = "5".repeat(43);
        for number in ["0.1", "1e300", "5e-324", "18446744073709551616", &format!("{digits}0.5")] {
            let text = format!("{{\"n\":[{number}]}}");
            let read: UnknownFields = serde_json::from_str(&text).expect("JSON");
            let written = serde_json::to_string(&read).expect("JSON");
            let again: UnknownFields = serde_json::from_str(&written).expect("JSON");
            assert!(again == read, "{number} became {written}");
        }
    }
}
