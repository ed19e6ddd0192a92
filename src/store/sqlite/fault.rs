//! What SQLite's errors mean for us.

use diesel::result::{DatabaseErrorKind, Error};

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

/// Sorts an error by what we then do.
pub fn classify(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation,
            information,
        ) => StoreError::Refused(information.message().to_owned()),
        Error::DatabaseError(_, information) => classify_text(information.message()),
        Error::SerializationError(error) => StoreError::Refused(error.to_string()),
        Error::DeserializationError(error) => StoreError::Unusable(error.to_string()),
        // The commit's own failure decides; that the roll-back failed as well only means that the
        // connection is not used again.
        Error::RollbackErrorOnCommit { commit_error, .. } => classify(*commit_error),
        other => StoreError::Failed(other.to_string()),
    }
}

/// Sorts by the text: diesel does not hand on SQLite's result codes, and these texts are part of
/// SQLite's stable interface (`sqlite3_errstr`).
pub fn classify_text(text: &str) -> StoreError {
    const AWAY: [&str; 7] = [
        "locked",
        "locking protocol",
        "is full",
        "disk I/O error",
        "readonly",
        "unable to open",
        "out of memory",
    ];
    const NOT_OURS: [&str; 4] = ["not a database", "malformed", "no such table", "no such column"];
    const CONTENT: [&str; 4] =
        ["too big", "datatype mismatch", "constraint failed", "cannot store"];
    let one_of = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
    if one_of(&NOT_OURS) {
        StoreError::Unusable(text.to_owned())
    } else if one_of(&AWAY) {
        StoreError::Unavailable(text.to_owned())
    } else if one_of(&CONTENT) {
        StoreError::Refused(text.to_owned())
    } else {
        StoreError::Failed(text.to_owned())
    }
}
