//! The first rule of everything that clients send: it is one JSON object. An error names the field.
//!
//! Serde would read a struct from a list of its fields too, in the order of the source code, which
//! nobody was promised.

use serde::{Deserialize, de::IgnoredAny};
use serde_path_to_error::Segment;

/// Longest text of an error, in characters: it repeats what the client has said.
const MAX_CHARS: usize = 256;

/// Why a text is not the object that is expected.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("a JSON object is expected")]
    NotAnObject,
    #[error("{}", cut(.0))]
    Json(#[from] serde_json::Error),
    /// With the path to the field.
    #[error("{}", cut(.0))]
    Field(#[from] serde_path_to_error::Error<serde_json::Error>),
}

impl ObjectError {
    /// The field of the object that is not understood.
    pub fn field(&self) -> Option<String> {
        let Self::Field(error) = self else { return None };
        error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        })
    }

    /// Whether the text is JSON, but not what is expected.
    pub fn is_data(&self) -> bool {
        match self {
            Self::NotAnObject | Self::Field(_) => true,
            Self::Json(error) => error.is_data(),
        }
    }
}

fn cut(error: &impl ToString) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
        text.push_str("..");
    }
    text
}

/// Reads an object.
///
/// # Errors
/// When the text is not JSON, is something else than an object, or lacks what `T` needs.
pub fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ObjectError> {
    if !text.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<IgnoredAny>(text)?;
        return Err(ObjectError::NotAnObject);
    }
    match serde_json::from_slice(text) {
        // Only who has failed pays for the path.
        Err(error) if error.is_data() => {
            let mut again = serde_json::Deserializer::from_slice(text);
            serde_path_to_error::deserialize::<_, T>(&mut again)?;
            Err(error.into())
        }
        read => Ok(read?),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Request {
        action: String,
    }

    fn action(text: &str) -> Result<String, String> {
        read(text.as_bytes()).map(|request: Request| request.action).map_err(|e| e.to_string())
    }

    #[test]
    fn only_an_object_is_read() {
        assert_eq!(action(" \r\n\t{\"action\":\"list\"}"), Ok("list".to_owned()));
        for text in ["[\"list\"]", " [ ]", "\"list\"", "1", "null", "true"] {
            assert_eq!(action(text), Err("a JSON object is expected".to_owned()), "{text}");
        }
    }

    #[test]
    fn the_field_that_is_not_understood_is_named() {
        let seven = action("{\"action\":7}").unwrap_err();
        assert!(
            seven.starts_with("action: invalid type: integer `7`, expected a string"),
            "{seven}"
        );
        let missing = action("{}").unwrap_err();
        assert!(missing.starts_with("missing field `action`"), "{missing}");
        let error = read::<BTreeMap<String, Vec<u64>>>(br#"{"users":[1,"x"]}"#).unwrap_err();
        assert!(error.is_data() && error.to_string().starts_with("users[1]: "), "{error}");
        assert_eq!(error.field().as_deref(), Some("users"));
        let long = action(&format!(r#"{{"action":["{}"]}}"#, "é".repeat(10_000)));
        assert!(long.unwrap_err().len() < 600);
        let long = format!(r#"{{"users":"{}"}}"#, "\u{7f}".repeat(10_000));
        let error = read::<BTreeMap<String, Vec<u64>>>(long.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("users: invalid type") && error.ends_with(".."), "{error}");
        assert_eq!(error.chars().count(), MAX_CHARS + 2);
    }

    #[test]
    fn what_is_no_json_is_no_data() {
        for text in ["", "list", "[1", "{"] {
            let error = read::<Request>(text.as_bytes()).unwrap_err();
            assert!(!error.is_data(), "{text}: {error}");
        }
    }
}
