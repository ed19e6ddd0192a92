//! What is read of a fill's body. The body itself is what clients get.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{FILLS, text::Text};
use crate::event::Event;

/// Which side of the book the order of a fill stood on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Side {
    /// A bid: its user has bought.
    #[serde(rename = "B")]
    Buy,
    /// An ask: its user has sold.
    #[serde(rename = "A")]
    Sell,
}

impl Side {
    /// As bodies have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "B",
            Self::Sell => "A",
        }
    }
}

/// The fields of a fill that other shapes are made of, borrowed from its body:
///
/// ```json
/// {"coin":"UNI","px":"3.9457","sz":"3.9","side":"B","time":1773532799991,"startPosition":"53460.3",
///  "dir":"Open Long","closedPnl":"0.0","hash":"0xe9ce..","oid":349162667230,"crossed":true,"fee":"0.0",
///  "tid":868180814349127,"feeToken":"USDC","twapId":null}
/// ```
///
/// Fields that are not named here may be there, and new ones come: they are passed over.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fill<'b> {
    /// `BTC`; `xyz:NVDA` for markets of others; `@142` and `PURR/USDC` for spot; `#12` for outcomes.
    #[serde(borrow)]
    pub coin: Text<'b>,
    /// Price, decimal.
    pub px: Text<'b>,
    /// Size in units of the coin, decimal.
    pub sz: Text<'b>,
    pub side: Side,
    /// Milliseconds since 1970: the floor of the block's time.
    pub time: u64,
    /// For people: `Open Long`, `Long > Short`, `Spot Dust Conversion` and others.
    pub dir: Text<'b>,
    /// Of the transaction: `0x` and 64 digits, all zero for TWAP slices and what the system does.
    pub hash: Text<'b>,
    /// Of the order; it repeats over the fills of one order.
    pub oid: u64,
    /// Whether this side took liquidity.
    pub crossed: bool,
    pub fee_token: Option<Text<'b>>,
    /// Shared by the two sides of a trade; 0 for each dust conversion. Fills of early 2023 have none.
    pub tid: Option<u64>,
    /// Of the TWAP order of which this is a slice: an integer. `null` and absent are the same.
    #[serde(default)]
    pub twap_id: Option<&'b RawValue>,
}

impl<'b> Fill<'b> {
    /// Reads an event; `None` when it is none of fills, or its body has another shape.
    pub fn read(event: &'b Event) -> Option<Self> {
        (event.id.topic == FILLS).then(|| Self::of_body(&event.body)).flatten()
    }

    /// Reads a body; `None` when it has another shape.
    pub fn of_body(body: &'b [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The number of its trade; `None` for what is no trade between two users.
    pub fn trade(&self) -> Option<u64> {
        self.tid.filter(|tid| *tid != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{FILL, fill_event};

    #[test]
    fn the_fields_of_a_fill_are_read_as_they_are_written() {
        let fill = Fill::of_body(FILL.as_bytes()).unwrap();

        assert_eq!((fill.coin.as_written(), fill.px.as_written()), ("UNI", "3.9457"));
        assert_eq!((fill.sz.as_written(), fill.side), ("3.9", Side::Buy));
        assert_eq!((fill.time, fill.dir.as_written()), (1_773_532_799_991, "Open Long"));
        assert_eq!((fill.oid, fill.crossed), (349_162_667_230, true));
        assert_eq!(fill.trade(), Some(868_180_814_349_127));
        assert_eq!(fill.fee_token.map(Text::as_written), Some("USDC"));
        assert!(fill.twap_id.is_none());
    }

    #[test]
    fn null_is_absent_and_a_dust_conversion_is_no_trade() {
        let body = FILL.replace("868180814349127", "0").replace(",\"twapId\":null", "");

        let fill = Fill::of_body(body.as_bytes()).unwrap();

        assert!(fill.twap_id.is_none());
        assert_eq!(fill.trade(), None);
    }

    #[test]
    fn the_number_of_a_twap_order_is_kept_as_it_is() {
        let body = FILL.replace("\"twapId\":null", "\"twapId\":1671203");

        let fill = Fill::of_body(body.as_bytes()).unwrap();

        assert_eq!(fill.twap_id.map(RawValue::get), Some("1671203"));
    }

    #[test]
    fn other_shapes_and_topics_give_nothing() {
        for (from, to) in [
            ("\"coin\":\"UNI\",", ""),
            ("\"side\":\"B\"", "\"side\":\"C\""),
            ("\"px\":\"3.9457\"", "\"px\":3.9457"),
            ("\"oid\":349162667230", "\"oid\":-1"),
            ("\"crossed\":true", "\"crossed\":1"),
            ("}", "},"),
        ] {
            let body = FILL.replace(from, to);
            assert_ne!(body, FILL, "{from}");
            assert!(Fill::of_body(body.as_bytes()).is_none(), "{body}");
        }
        let mut event = fill_event(1, 0, 7, FILL);
        assert!(Fill::read(&event).is_some());
        event.id.topic = crate::official::MISC;
        assert!(Fill::read(&event).is_none());
    }
}
