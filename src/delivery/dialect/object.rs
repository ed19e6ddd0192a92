//! The first rule of everything that clients send: it is one JSON object.
//!
//! Serde would read a struct from a list of its fields too, in the order of the source code, which
//! nobody was promised.

use serde::{Deserialize, de::IgnoredAny};

/// Why a text is not the object that is expected.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("a JSON object is expected")]
    NotAnObject,
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl ObjectError {
    /// Whether the text is JSON, but not what is expected.
    pub fn is_data(&self) -> bool {
        match self {
            Self::NotAnObject => true,
            Self::Json(error) => error.is_data(),
        }
    }
}

/// Reads an object.
///
/// # Errors
/// When the text is not JSON, is something else than an object, or lacks what `T` needs.
pub fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ObjectError> {
    if text.trim_ascii_start().starts_with(b"{") {
        return Ok(serde_json::from_slice(text)?);
    }
    serde_json::from_slice::<IgnoredAny>(text)?;
    Err(ObjectError::NotAnObject)
}

#[cfg(test)]
mod tests {
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
    fn what_is_no_json_is_no_data() {
        for text in ["", "list", "[1", "{"] {
            let error = read::<Request>(text.as_bytes()).unwrap_err();
            assert!(!error.is_data(), "{text}: {error}");
        }
    }
}
