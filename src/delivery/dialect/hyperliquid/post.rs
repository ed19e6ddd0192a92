//! Requests for information over the socket: what `POST /info` answers, as a message.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    refused::{MAX_POST_BYTES, PostFault},
    say::{Response, Say},
};
use crate::{
    delivery::dialect::{Aside, Desk},
    object,
    official::info::InfoError,
};

/// Longest answer, in bytes: it is one message, which is made and queued at once.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A request for information.
pub struct Post {
    id: Box<RawValue>,
    payload: Result<Box<RawValue>, PostFault>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Post {
    /// Reads the request of a message; `None` when that is none.
    pub fn read(id: &RawValue, request: &RawValue) -> Option<Self> {
        serde_json::from_str::<u64>(id.get()).ok()?;
        let request: Request<'_> = object::read(request.get().as_bytes()).ok()?;
        let payload = match (&*request.kind, request.payload) {
            ("info", Some(payload)) if payload.get().len() > MAX_POST_BYTES => {
                Err(PostFault::TooLong)
            }
            ("info", Some(payload)) => Ok(payload.to_owned()),
            _ => Err(PostFault::NotInfo),
        };
        Some(Self { id: id.to_owned(), payload })
    }

    /// Asks; others need not wait for the answer.
    pub fn ask(self, desk: &mut Desk<'_>) {
        let Self { id, payload } = self;
        let asked = payload.and_then(|payload| {
            if desk.asides.len() < desk.free_asides {
                return Ok(payload);
            }
            desk.stats.official.refused_posts.add(1);
            Err(PostFault::TooMany)
        });
        let payload = match asked {
            Ok(payload) => payload,
            Err(fault) => {
                return desk.tell(&Say::Post { id: &id, response: Response::error(&fault) });
            }
        };
        let request = payload.clone();
        let frame = Box::new(move |answer: Result<Bytes, InfoError>| {
            let response = match answer {
                Ok(answer) if answer.len() > MAX_ANSWER_BYTES => {
                    Response::error(&PostFault::LongAnswer)
                }
                Ok(answer) => Response::info(&payload, answer),
                Err(error) => Response::error(&error),
            };
            Say::Post { id: &id, response }.frame()
        });
        desk.asides.push(Aside { request, frame });
    }
}
