//! How a request that cannot be served is answered: `{"code": "...", "message": "..."}`.
//!
//! Invariant: the code is a promise to programs, the message is for people. The two routes of the
//! older service answer in its own form instead, see [`super::older`].

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;

use crate::{delivery::set::EnterError, store::StoreError};

/// Why a request is refused or cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Parameters that cannot be understood; the text names each fault of the request.
    #[error("{0}")]
    InvalidParameter(String),
    /// No route has this path.
    #[error("no route has this path; GET / lists the routes")]
    NotFound,
    /// The route does not know the method. Carries those it knows, as in `Allow`.
    #[error("this route answers {allow} only")]
    MethodNotAllowed { allow: &'static str },
    /// A WebSocket route was asked without an upgrade.
    #[error("this route speaks WebSocket: connect with a WebSocket client")]
    UpgradeRequired,
    /// As many exports run as are allowed; it works again when one of them ends.
    #[error("{0} exports are under way, which is the limit; try again later")]
    Busy(usize),
    /// Others look for the place where they begin, and it took too long until one was done.
    #[error("too many look for the place where they begin; try again later")]
    Searching,
    /// No session can be opened now.
    #[error("{0}")]
    NoSession(#[from] EnterError),
    /// The daemon stops.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Events behind a cursor were deleted.
    #[error(
        "events behind this cursor have been deleted; {oldest} is the oldest place that is left"
    )]
    Expired { oldest: String },
    /// Another daemon serves: this one waits to take over from it.
    #[error("this daemon stands by for another one: {0}")]
    Standby(Arc<str>),
    /// The store did not answer. It works again when the store does.
    #[error("the store does not answer at the moment; try again later")]
    Unavailable(#[source] StoreError),
    /// The store was given up after this time; a narrower question may be answered.
    #[error("the answer was not found within {0:?}: ask for fewer blocks or a shorter time")]
    TooSlow(Duration),
    /// The store answered with something that trying again does not mend.
    #[error("the store could not answer this request")]
    Store(#[source] StoreError),
}

/// What a client is told.
#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: String,
    /// Where what is left begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<&'a str>,
}

impl ApiError {
    /// The name that programs compare; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidParameter(_) => "invalid_parameter",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::UpgradeRequired => "upgrade_required",
            Self::Busy(_) | Self::Searching => "busy",
            Self::NoSession(EnterError::Full) => "too_many_sessions",
            Self::NoSession(EnterError::Crowded) => "too_many_of_address",
            Self::NoSession(EnterError::Closing) | Self::ShuttingDown => "shutting_down",
            Self::Expired { .. } => "cursor_expired",
            Self::Standby(_) => "standby",
            Self::Unavailable(_) => "unavailable",
            Self::TooSlow(_) => "too_slow",
            Self::Store(_) => "store_failed",
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::LeaseLost(_) | StoreError::Failed(_) => {
                Self::Unavailable(error)
            }
            StoreError::TooSlow(limit) => Self::TooSlow(limit),
            StoreError::Refused(_) | StoreError::Unusable(_) | StoreError::Denied(_) => {
                Self::Store(error)
            }
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::Expired { .. } => StatusCode::GONE,
            Self::NoSession(EnterError::Crowded) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy(_)
            | Self::Searching
            | Self::NoSession(_)
            | Self::ShuttingDown
            | Self::Standby(_)
            | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooSlow(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::MethodNotAllowed { allow } => {
                response.insert_header((header::ALLOW, *allow));
            }
            Self::UpgradeRequired => {
                response.insert_header((header::UPGRADE, "websocket"));
            }
            Self::NoSession(_) | Self::ShuttingDown => {
                response.insert_header((header::RETRY_AFTER, "5"));
            }
            Self::Busy(_) | Self::Searching | Self::Standby(_) | Self::Unavailable(_) => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            Self::InvalidParameter(_)
            | Self::NotFound
            | Self::Expired { .. }
            | Self::TooSlow(_)
            | Self::Store(_) => {}
        }
        let oldest = match self {
            Self::Expired { oldest } => Some(&**oldest),
            _ => None,
        };
        response.insert_header((header::CACHE_CONTROL, "no-store")).json(ErrorBody {
            code: self.code(),
            message: self.to_string(),
            oldest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_says_has_a_status_that_tells_who_can_mend_it() {
        let text = || "text".to_owned();
        let slow = StoreError::TooSlow(Duration::from_secs(10));

        let answers = [slow, StoreError::Unavailable(text()), StoreError::Unusable(text())]
            .map(|error| ApiError::from(error).status_code().as_u16());

        assert_eq!(answers, [422, 503, 500]);
    }
}
