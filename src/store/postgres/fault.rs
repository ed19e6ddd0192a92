//! What PostgreSQL's errors mean for us.
//!
//! By their SQLSTATE, which [`sqlstate`](super::sqlstate) puts in front of their text; by the text, in
//! English, where it cannot.

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

/// Sorts by what the server said.
pub fn of_text(text: &str) -> StoreError {
    let said = text.to_owned();
    match state(text) {
        Some(state) => match (&state[..2], state) {
            // Classes: connection, rollback, resources, operator, system; a lock, a read-only server;
            // and what the server has no better word for, such as a file that may not grow.
            ("08" | "40" | "53" | "57" | "58", _) | (_, "55P03" | "25006" | "XX000") => {
                StoreError::Unavailable(said)
            }
            // Data that no column can hold; limits of the program, such as a key that is too long.
            ("22" | "23" | "54", _) => StoreError::Refused(said),
            // Who we are; which database, schema and tables are there; what we may.
            ("28" | "3D" | "3F", _) | (_, "42501" | "42P01") => StoreError::Denied(said),
            // Other tables than ours; our migration.
            ("42" | "P0", _) => StoreError::Unusable(said),
            _ => StoreError::Failed(said),
        },
        None => of_english(text),
    }
}

/// Whether the server broke a statement off because it took too long.
pub fn is_too_slow(text: &str) -> bool {
    state(text).map_or_else(|| text.contains("statement timeout"), |state| state == "57014")
}

/// Whether the server said that it closes the connection: by an operator, in its own end, or idle for
/// too long.
pub fn is_closing(error: &StoreError) -> bool {
    let StoreError::Unavailable(text) = error else { return false };
    match state(text) {
        Some(state) => state.starts_with("08") || ["57P01", "57P02", "57P05"].contains(&state),
        None => text.contains("terminating connection") || text.contains("connection closed"),
    }
}

/// The SQLSTATE in a text such as `[57014] canceling statement due to statement timeout`.
fn state(text: &str) -> Option<&str> {
    let is_code = |code: &str| code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let after_bracket = text.match_indices('[').map(|(at, _)| &text[at + 1..]);
    let mut codes =
        after_bracket.filter(|rest| rest.get(5..7) == Some("] ")).map(|rest| &rest[..5]);
    codes.find(|code| is_code(code))
}

fn of_english(text: &str) -> StoreError {
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
    const NOT_OURS: [&str; 2] = ["column", "nodecast needs"];
    const DENIED: [&str; 4] =
        ["does not exist", "permission denied", "must be owner", "authentication failed"];
    const CONTENT: [&str; 4] =
        ["invalid input syntax", "invalid byte sequence", "unsupported Unicode", "out of range"];
    let one_of = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
    if one_of(&CONTENT) {
        StoreError::Refused(text.to_owned())
    } else if one_of(&NOT_OURS) {
        StoreError::Unusable(text.to_owned())
    } else if one_of(&DENIED) {
        StoreError::Denied(text.to_owned())
    } else if one_of(&AWAY) {
        StoreError::Unavailable(text.to_owned())
    } else {
        StoreError::Failed(text.to_owned())
    }
}

/// Sorts the failure of a new connection: what the server says to us (a wrong password, an unknown
/// database) will be the same until an operator changes it; that it does not answer may not.
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
        // What the driver misses in the URL, as the server asks for it.
        if text.ends_with("password missing") {
            let missing = "the server asks for a password, and the database URL names none \
                           (postgres://USER:PASSWORD@HOST/DATABASE)";
            StoreError::Denied(missing.to_owned())
        } else if error.code().is_some_and(|code| ours.contains(code)) {
            StoreError::Denied(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_their_state_in_any_language() {
        for (text, kind) in [
            ("[57014] Anweisung wird abgebrochen", "Unavailable"),
            ("[55P03] storniere Anfrage wegen Zeitüberschreitung einer Sperre", "Unavailable"),
            ("[25006] kann INSERT nicht ausführen", "Unavailable"),
            ("[53100] konnte Datei nicht erweitern", "Unavailable"),
            ("[08006] Verbindung unterbrochen", "Unavailable"),
            ("[40P01] Verklemmung entdeckt", "Unavailable"),
            ("[57P01] Verbindung wird abgebrochen", "Unavailable"),
            ("[58030] konnte nicht schreiben", "Unavailable"),
            ("[22021] ungültige Byte-Sequenz", "Refused"),
            ("[54000] Indexzeile ist zu groß", "Refused"),
            ("[28P01] Passwort-Authentifizierung fehlgeschlagen", "Denied"),
            ("[3D000] Datenbank existiert nicht", "Denied"),
            ("[42P01] Relation existiert nicht", "Denied"),
            ("[42703] Spalte existiert nicht", "Unusable"),
            ("Failed to run up with: [42501] keine Berechtigung", "Denied"),
            ("[XX000] konnte nicht schreiben: does not exist", "Unavailable"),
            ("[XX001] Index ist beschädigt: connection", "Failed"),
            ("relation [x] does not exist", "Denied"),
            ("column \"x\" does not exist", "Unusable"),
            ("canceling statement due to lock timeout", "Unavailable"),
        ] {
            let sorted = format!("{:?}", of_text(text));
            assert!(sorted.starts_with(kind), "{text}: {sorted}");
        }
        assert!(is_too_slow("[57014] abgebrochen") && is_too_slow("due to statement timeout"));
        assert!(!is_too_slow("[57P01] statement timeout"));
        for (text, closes) in [
            ("[57P01] Verbindung wird abgebrochen", true),
            ("[57014] Anweisung wird abgebrochen", false),
            ("connection closed", true),
            ("the server gives no answer within 12s", false),
        ] {
            assert_eq!(is_closing(&of_text(text)), closes, "{text}");
        }
    }
}
