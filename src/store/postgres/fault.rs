//! What PostgreSQL's errors mean for us.

use diesel::{
    ConnectionError,
    result::{DatabaseErrorKind, Error},
};

use crate::store::StoreError;

/// A [`StoreError`] inside a transaction of diesel, which needs a conversion from its own errors.
#[derive(Debug)]
pub struct Fault(pub StoreError);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(classify(error))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        fault.0
    }
}

/// Sorts an error by what we then do. A commit whose answer was lost is looked up by its number, so
/// a connection that broke is nothing but a reason to try again.
pub fn classify(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation,
            information,
        ) => StoreError::Refused(information.message().to_owned()),
        Error::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::SerializationFailure,
            information,
        ) => StoreError::Unavailable(information.message().to_owned()),
        Error::DatabaseError(_, information) => of_text(information.message()),
        Error::SerializationError(error) => StoreError::Refused(error.to_string()),
        Error::DeserializationError(error) => StoreError::Unusable(error.to_string()),
        // The transaction that was under way when the connection broke.
        Error::BrokenTransactionManager => {
            StoreError::Unavailable("the connection broke in a transaction".to_owned())
        }
        Error::RollbackErrorOnCommit { commit_error, .. } => classify(*commit_error),
        other => StoreError::Failed(other.to_string()),
    }
}

/// Sorts by the text, where diesel hands on no more: it has the kinds above and no SQLSTATE.
pub fn of_text(text: &str) -> StoreError {
    const AWAY: [&str; 14] = [
        "the database system is",
        "terminating connection",
        "too many clients",
        "remaining connection slots",
        "connection",
        "statement timeout",
        "lock timeout",
        "deadlock detected",
        "No space left",
        "Disk quota",
        "could not extend",
        "could not write",
        "out of memory",
        "read-only",
    ];
    const NOT_OURS: [&str; 5] = [
        "does not exist",
        "permission denied",
        "must be owner",
        "authentication failed",
        "nodecast needs",
    ];
    const CONTENT: [&str; 4] =
        ["invalid input syntax", "invalid byte sequence", "unsupported Unicode", "out of range"];
    let one_of = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
    if one_of(&CONTENT) {
        StoreError::Refused(text.to_owned())
    } else if one_of(&NOT_OURS) {
        StoreError::Unusable(text.to_owned())
    } else if one_of(&AWAY) {
        StoreError::Unavailable(text.to_owned())
    } else {
        StoreError::Failed(text.to_owned())
    }
}

/// Sorts the failure of a new connection: what the server says to us (a wrong password, an unknown
/// database) will be the same the next time; that it does not answer may not.
pub fn of_connecting(error: &ConnectionError) -> StoreError {
    let refused = |error: &tokio_postgres::Error| {
        let text = match error.as_db_error() {
            Some(said) => said.message().to_owned(),
            None => std::error::Error::source(error)
                .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
        };
        use tokio_postgres::error::SqlState;
        let ours = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        if error.code().is_some_and(|code| ours.contains(code)) {
            StoreError::Unusable(text)
        } else {
            StoreError::Unavailable(text)
        }
    };
    match error {
        ConnectionError::CouldntSetupConfiguration(Error::QueryBuilderError(cause)) => {
            match cause.downcast_ref::<tokio_postgres::Error>() {
                Some(error) => refused(error),
                None => StoreError::Unavailable(cause.to_string()),
            }
        }
        other => StoreError::Unavailable(other.to_string()),
    }
}
