//! What a client of the official protocol says.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{post::Post, refused::Fault, subscribe::Subscribe};
use crate::object;

/// What a client asks for.
pub enum Method {
    Ping,
    Subscribe(Subscribe),
    Unsubscribe(Subscribe),
    Post(Post),
}

#[derive(Deserialize)]
struct Head<'a> {
    method: String,
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

impl Method {
    /// Reads a message.
    ///
    /// # Errors
    /// When it asks for nothing that there is.
    pub fn read(text: &str) -> Result<Self, Fault> {
        let not_understood = || Fault::request(text);
        let head: Head<'_> = object::read(text.as_bytes()).map_err(|_| not_understood())?;
        match (&*head.method, head.subscription, head.id.zip(head.request)) {
            ("ping", ..) => Ok(Self::Ping),
            ("subscribe", Some(named), _) => Subscribe::read(named).map(Self::Subscribe),
            ("unsubscribe", Some(named), _) => Subscribe::read(named).map(Self::Unsubscribe),
            ("post", _, Some((id, request))) => {
                Post::read(id, request).map(Self::Post).ok_or_else(not_understood)
            }
            _ => Err(not_understood()),
        }
    }
}
