//! Ledger updates: deposits, transfers and whatever else moves a balance, fundings and fills apart.

use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{IN_MEMORY, MISC, text::Text, time_ms};
use crate::event::{Address, Event};

/// What an event of this shape says:
///
/// ```json
/// {"time":"2026-06-11T01:00:02.896899363","hash":"0x5a44..","inner":{"LedgerUpdate":{"users":["0x8b1c.."],
///  "delta":{"type":"send","user":"0x8b1c..","amount":"500.008953",...}}}}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LedgerUpdate<'b> {
    /// Milliseconds since 1970.
    pub time: i64,
    pub hash: Text<'b>,
    /// An object with a `type`, which is an open set.
    pub delta: &'b RawValue,
}

/// What `userEvents` tells of an update of the type `liquidation`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Liquidation<'b> {
    #[serde(borrow, rename = "type")]
    kind: Text<'b>,
    #[serde(borrow)]
    liquidated_ntl_pos: Text<'b>,
    #[serde(borrow)]
    account_value: Text<'b>,
}

#[derive(Deserialize)]
struct Body<'b> {
    #[serde(borrow)]
    hash: Text<'b>,
    inner: Inner<'b>,
}

#[derive(Deserialize)]
struct Inner<'b> {
    #[serde(borrow, rename = "LedgerUpdate")]
    update: Update<'b>,
}

#[derive(Deserialize)]
struct Update<'b> {
    #[serde(borrow)]
    delta: &'b RawValue,
}

impl<'b> LedgerUpdate<'b> {
    /// Reads an event; `None` when it is no ledger update.
    pub fn read(event: &'b Event) -> Option<Self> {
        if event.id.topic != MISC {
            return None;
        }
        let Body { hash, inner } = serde_json::from_slice(&event.body).ok()?;
        let delta: &'b RawValue = inner.update.delta;
        delta.get().starts_with('{').then(|| Self { time: time_ms(event), hash, delta })
    }

    /// None where it is of another type, or of a shape that nobody knows.
    pub fn liquidation(&self) -> Option<Liquidation<'b>> {
        let read: Liquidation<'b> = serde_json::from_str(self.delta.get()).ok()?;
        (read.kind.as_written() == "liquidation").then_some(read)
    }

    /// Appends it as `userNonFundingLedgerUpdates` has it, over both ways:
    /// `{"time":1781139602896,"hash":"0x5a44..","delta":{"type":"send",...}}`, the delta byte by byte.
    pub fn push(&self, out: &mut Vec<u8>) {
        let (hash, delta) = (self.hash.as_written(), self.delta.get());
        write!(out, r#"{{"time":{},"hash":"{hash}","delta":{delta}}}"#, self.time)
            .expect(IN_MEMORY);
    }
}

impl Liquidation<'_> {
    /// Appends it as `userEvents` has it. Clients expect two fields that no node writes: `lid`, for which `id`
    /// stands, and `liquidator`, for whom nobody does:
    ///
    /// ```json
    /// {"lid":1,"liquidator":"0x0000..","liquidated_user":"0x0707..","liquidated_ntl_pos":"1500.0",
    ///  "liquidated_account_value":"12.5"}
    /// ```
    pub fn push(&self, id: u64, user: Address, out: &mut Vec<u8>) {
        let (position, value) =
            (self.liquidated_ntl_pos.as_written(), self.account_value.as_written());
        let nobody = Address([0; 20]);
        write!(
            out,
            r#"{{"lid":{id},"liquidator":"{nobody}","liquidated_user":"{user}","liquidated_ntl_pos":"{position}","liquidated_account_value":"{value}"}}"#
        )
        .expect(IN_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{SEND, misc_event};

    #[test]
    fn a_ledger_update_has_its_time_in_milliseconds_and_its_delta_unchanged() {
        let delta = r#"{"type":"send", "memo":"O'Brien \"x\" \u00e9","amount":"500.0089530","nonce":1781139594371}"#;
        let body = SEND.replace("DELTA", delta);
        let event = misc_event(7, &body);
        let mut out = Vec::new();

        LedgerUpdate::read(&event).unwrap().push(&mut out);

        let expected = format!(r#"{{"time":1781139600039,"hash":"0x5a44","delta":{delta}}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_delta_of_a_type_that_nobody_knows_is_an_update_too() {
        let body = SEND.replace("DELTA", r#"{"type":"fromTomorrow"}"#);

        assert!(LedgerUpdate::read(&misc_event(7, &body)).is_some());
    }

    #[test]
    fn other_shapes_and_topics_give_nothing() {
        let good = SEND.replace("DELTA", "{}");
        for (from, to) in [
            ("LedgerUpdate", "CDeposit"),
            ("\"delta\":{}", "\"delta\":7"),
            ("\"delta\":{}", "\"other\":{}"),
            ("\"hash\":\"0x5a44\"", "\"hash\":null"),
        ] {
            let body = good.replace(from, to);
            assert_ne!(body, good, "{from}");
            assert!(LedgerUpdate::read(&misc_event(7, &body)).is_none(), "{body}");
        }
        let mut fill = misc_event(7, &good);
        assert!(LedgerUpdate::read(&fill).is_some());
        fill.id.topic = crate::official::FILLS;
        assert!(LedgerUpdate::read(&fill).is_none());
    }
}
