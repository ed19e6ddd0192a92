//! `aggregateByTime`: the partial fills of one crossing order, told as one.

use std::{iter, ops::Range};

use ahash::HashMap;
use bytes::Bytes;
use rust_decimal::Decimal;
use serde::Deserialize;

use super::{
    Fill,
    decimal::{self, Written},
    fill::Side,
    text::Text,
};
use crate::event::{Address, Event};

/// Decimal places of an average price: the finest that a price has.
const PRICE_PLACES: u32 = 8;

/// Combines the fills of each crossing order in one block, and leaves all others byte by byte as they are.
///
/// Takes a run of fills, ascending or descending; the combined fill stands where the first of its fills
/// stood. Fills of an order that do not agree in coin, side, direction or the token of the fee stay apart,
/// since one fill cannot say both. So do those of resting orders.
///
/// A combined fill is the earliest of them (its `tid`, `startPosition` and all that is not named here) with
/// `sz`, `closedPnl` and the fees summed, and `px` the average weighted by size, rounded to eight places.
/// What cannot be summed exactly is left as it is.
///
/// The service's documentation says which fills are combined (newer texts: those of a resting order in one
/// block too), not what a combined fill has in each field; no recorded answer shows one.
pub fn aggregate<'e>(fills: impl IntoIterator<Item = &'e Event>) -> Vec<Bytes> {
    let mut orders: Vec<Vec<&'e Event>> = Vec::new();
    let mut known = HashMap::<Order<'e>, usize>::default();
    for event in fills {
        match Order::of(event) {
            Some(order) => {
                let at = *known.entry(order).or_insert(orders.len());
                if at == orders.len() {
                    orders.push(Vec::new());
                }
                orders[at].push(event);
            }
            None => orders.push(vec![event]),
        }
    }
    let mut bodies = Vec::with_capacity(orders.len());
    for fills in orders {
        match combined(&fills) {
            Some(body) => bodies.push(body),
            None => bodies.extend(fills.into_iter().map(|event| event.body.clone())),
        }
    }
    bodies
}

/// What is told with a fill, of those that have come of its block before and behind it: with the first of an
/// order all of it, as [`aggregate()`] tells it, and nothing with the others.
pub fn aggregated_at<'e>(
    fill: &'e Event,
    before: impl DoubleEndedIterator<Item = &'e Event>,
    behind: impl Iterator<Item = &'e Event>,
) -> Vec<Bytes> {
    let Some(order) = Order::of(fill) else { return vec![fill.body.clone()] };
    let digits = order.oid.to_string();
    let is_of_order = |other: &&Event| {
        // A search through the text is cheap, and a block may have thousands.
        other.user == fill.user
            && memchr::memmem::find(&other.body, digits.as_bytes()).is_some()
            && Order::of(other).is_some_and(|other| other == order)
    };
    // The nearest first: a long order would else be read again for each of its fills.
    if before.rev().any(|other| is_of_order(&other)) {
        return Vec::new();
    }
    aggregate(iter::once(fill).chain(behind.filter(is_of_order)))
}

/// In what fills have to agree to be told as one.
#[derive(PartialEq, Eq, Hash)]
struct Order<'b> {
    user: Option<Address>,
    position: u64,
    oid: u64,
    coin: Text<'b>,
    side: Side,
    dir: Text<'b>,
    fee_token: Option<Text<'b>>,
}

impl<'b> Order<'b> {
    /// The crossing order of a fill.
    fn of(event: &'b Event) -> Option<Self> {
        let Fill { coin, side, oid, dir, fee_token, .. } =
            Fill::read(event).filter(|fill| fill.crossed)?;
        Some(Self {
            user: event.user,
            position: event.id.position,
            oid,
            coin,
            side,
            dir,
            fee_token,
        })
    }
}

/// The amounts of a fill that are summed, by their names in the body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Amounts<'b> {
    #[serde(borrow)]
    px: Text<'b>,
    sz: Text<'b>,
    closed_pnl: Text<'b>,
    fee: Text<'b>,
    builder_fee: Option<Text<'b>>,
    deployer_fee: Option<Text<'b>>,
    priority_gas: Option<Text<'b>>,
}

const SUMMED: [&str; 6] = ["sz", "closedPnl", "fee", "builderFee", "deployerFee", "priorityGas"];

impl<'b> Amounts<'b> {
    fn summed(&self) -> [Option<Text<'b>>; SUMMED.len()] {
        [
            Some(self.sz),
            Some(self.closed_pnl),
            Some(self.fee),
            self.builder_fee,
            self.deployer_fee,
            self.priority_gas,
        ]
    }
}

/// The body of several fills as one; `None` when there is one only, or a sum cannot be exact.
fn combined(fills: &[&Event]) -> Option<Bytes> {
    if fills.len() < 2 {
        return None;
    }
    let earliest = fills.iter().min_by_key(|event| (event.id.position, event.id.index))?;
    let mut value = Decimal::ZERO;
    let mut sums = [None; SUMMED.len()];
    for event in fills {
        let amounts: Amounts<'_> = serde_json::from_slice(&event.body).ok()?;
        let price = decimal::read(amounts.px.as_written())?;
        let size = decimal::read(amounts.sz.as_written())?;
        value = decimal::plus(value, decimal::times(price, size)?)?;
        for (sum, amount) in sums.iter_mut().zip(amounts.summed()) {
            if let Some(amount) = amount {
                let amount = decimal::read(amount.as_written())?;
                *sum = Some(decimal::plus(sum.unwrap_or(Decimal::ZERO), amount)?);
            }
        }
    }
    let price = decimal::divided(value, sums[0]?, PRICE_PLACES)?;
    let amounts: Amounts<'_> = serde_json::from_slice(&earliest.body).ok()?;
    let mut body = Replaced::new(&earliest.body);
    body.replace(amounts.px, price)?;
    for ((name, sum), amount) in SUMMED.into_iter().zip(sums).zip(amounts.summed()) {
        match (sum, amount) {
            (Some(sum), Some(amount)) => body.replace(amount, sum)?,
            // Only a later fill has it.
            (Some(sum), None) => {
                body.added.push_str(&format!(r#","{name}":"{}""#, Written(sum)));
            }
            (None, _) => {}
        }
    }
    body.into_bytes()
}

/// An object of which some strings are replaced and to which some members are added; all else is copied.
struct Replaced<'b> {
    body: &'b [u8],
    places: Vec<(Range<usize>, Decimal)>,
    /// Members, each behind a comma.
    added: String,
}

impl<'b> Replaced<'b> {
    fn new(body: &'b [u8]) -> Self {
        Self { body, places: Vec::with_capacity(1 + SUMMED.len()), added: String::new() }
    }

    fn replace(&mut self, text: Text<'_>, by: Decimal) -> Option<()> {
        self.places.push((text.place_in(self.body)?, by));
        Some(())
    }

    fn into_bytes(mut self) -> Option<Bytes> {
        let end = self.body.iter().rposition(|byte| *byte == b'}')?;
        self.places.sort_by_key(|(place, _)| place.start);
        let mut out = Vec::with_capacity(self.body.len() + self.added.len() + 64);
        let mut copied = 0;
        for (place, value) in self.places {
            out.extend_from_slice(self.body.get(copied..place.start)?);
            out.extend_from_slice(Written(value).to_string().as_bytes());
            copied = place.end;
        }
        out.extend_from_slice(self.body.get(copied..end)?);
        out.extend_from_slice(self.added.as_bytes());
        out.push(b'}');
        Some(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{FILL, fill_event};

    /// A crossing fill of the same order with other amounts.
    fn partial(px: &str, sz: &str, start: &str) -> String {
        FILL.replace("3.9457", px)
            .replace("\"3.9\"", &format!("\"{sz}\""))
            .replace("53460.3", start)
    }

    fn texts(bodies: &[Bytes]) -> Vec<&str> {
        bodies.iter().map(|body| std::str::from_utf8(body).unwrap()).collect()
    }

    #[test]
    fn the_fills_of_a_crossing_order_are_one_with_sums_and_the_average_price() {
        let one = partial("10.0", "1.0", "5.0").replace("\"fee\":\"0.00\"", "\"fee\":\"0.10\"");
        let two = partial("11.0", "2.0", "6.0")
            .replace("\"fee\":\"0.00\"", "\"fee\":\"-0.025\"")
            .replace("\"closedPnl\":\"0.0\"", "\"closedPnl\":\"-1.5\"")
            .replace("868180814349127", "4");
        let run = [fill_event(5, 0, 7, &one), fill_event(5, 2, 7, &two)];

        let bodies = aggregate(&run);

        let expected = partial("10.66666667", "3.0", "5.0")
            .replace("\"fee\":\"0.00\"", "\"fee\":\"0.075\"")
            .replace("\"closedPnl\":\"0.0\"", "\"closedPnl\":\"-1.5\"");
        assert_eq!(texts(&bodies), [expected]);
    }

    #[test]
    fn newest_first_gives_the_same_and_keeps_the_place_of_the_newest() {
        let resting = FILL.replace("true", "false");
        let [one, two] = ["5.0", "6.0"].map(|start| partial("10.0", "1.0", start));
        let run = [
            fill_event(6, 0, 7, &resting),
            fill_event(5, 2, 7, &two),
            fill_event(5, 1, 7, &resting),
            fill_event(5, 0, 7, &one),
        ];

        let bodies = aggregate(&run);

        let both = partial("10.0", "2.0", "5.0").replace("\"0.00\"", "\"0.0\"");
        let expected = [resting.clone(), both, resting];
        assert_eq!(texts(&bodies), expected);
    }

    #[test]
    fn what_is_not_one_crossing_order_in_one_block_is_left_byte_by_byte() {
        let spaced = FILL.replace("\"fee\":\"0.00\"", "\"fee\": \"0.00\"");
        for (block, other) in [
            (6, FILL.to_owned()),
            (5, FILL.replace("349162667230", "349162667231")),
            (5, FILL.replace("Open Long", "Short > Long")),
            (5, FILL.replace("\"USDC\"", "\"USDH\"")),
            (5, FILL.replace("UNI", "BTC")),
            (5, "{}".to_owned()),
        ] {
            let run = [fill_event(5, 0, 7, &spaced), fill_event(block, 1, 7, &other)];

            assert_eq!(texts(&aggregate(&run)), [&spaced, &other]);
        }
        let of_two_users = [fill_event(5, 0, 7, FILL), fill_event(5, 1, 8, FILL)];
        assert_eq!(texts(&aggregate(&of_two_users)), [FILL, FILL]);
        let resting = FILL.replace("true", "false");
        let run = [fill_event(5, 0, 7, &resting), fill_event(5, 1, 7, &resting)];
        assert_eq!(texts(&aggregate(&run)), [&resting, &resting]);
    }

    #[test]
    fn a_fee_that_only_a_later_fill_has_is_not_lost() {
        let with = FILL.replace("}", ",\"builderFee\":\"0.01\"}");
        let run =
            [fill_event(5, 0, 7, FILL), fill_event(5, 1, 7, &with), fill_event(5, 2, 7, &with)];

        let bodies = aggregate(&run);

        let expected = FILL
            .replace("\"3.9\"", "\"11.7\"")
            .replace("\"0.00\"", "\"0.0\"")
            .replace("}", ",\"builderFee\":\"0.02\"}");
        assert_eq!(texts(&bodies), [expected]);
    }

    #[test]
    fn what_cannot_be_summed_is_left_as_it_is() {
        for odd in [FILL.replace("\"3.9\"", "\"many\""), FILL.replace("3.9457", &"9".repeat(38))] {
            let run = [fill_event(5, 0, 7, FILL), fill_event(5, 1, 7, &odd)];

            assert_eq!(texts(&aggregate(&run)), [FILL, &odd]);
        }
        let nothing = FILL.replace("\"3.9\"", "\"0.0\"");
        let run = [fill_event(5, 0, 7, &nothing), fill_event(5, 1, 7, &nothing)];
        assert_eq!(texts(&aggregate(&run)), [&nothing, &nothing]);
    }
}
