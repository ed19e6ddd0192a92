//! Fundings: what a user paid or received for his positions, every hour.

use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{IN_MEMORY, MISC, text::Text, time_ms};
use crate::event::Event;

/// The deltas of one user in an event of this shape, in their order:
///
/// ```json
/// {"time":"2026-06-11T01:00:00.039772125","hash":"0x0000..","inner":{"Funding":{"deltas":[
///  {"user":"0x0000..","coin":"ZEC","funding_amount":"9.330246","szi":"280.0",
///   "funding_rate":"-0.0000810249"}]}}}
/// ```
#[derive(Clone, Debug)]
pub struct Funding<'b> {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Zero since the system itself does it.
    pub hash: Text<'b>,
    /// At least one.
    pub deltas: Vec<Delta<'b>>,
}

/// The funding of one position.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Delta<'b> {
    #[serde(borrow)]
    user: Text<'b>,
    pub coin: Text<'b>,
    /// What official clients call `usdc`: decimal, negative when the user paid.
    pub funding_amount: Text<'b>,
    /// Size of the position, decimal, negative when it is short.
    pub szi: Text<'b>,
    /// Decimal, of an hour.
    pub funding_rate: Text<'b>,
}

#[derive(Deserialize)]
struct Body<'b> {
    #[serde(borrow)]
    hash: Text<'b>,
    inner: Inner<'b>,
}

#[derive(Deserialize)]
struct Inner<'b> {
    #[serde(borrow, rename = "Funding")]
    funding: Deltas<'b>,
}

#[derive(Deserialize)]
struct Deltas<'b> {
    #[serde(borrow)]
    deltas: Vec<&'b RawValue>,
}

impl<'b> Funding<'b> {
    /// Reads what an event says of its user; `None` when it is no funding of his.
    ///
    /// A delta of another shape, or of somebody else, is passed over: nodes mend nothing of the past, so
    /// one odd entry must not hide the others.
    pub fn read(event: &'b Event) -> Option<Self> {
        let user = event.user.filter(|_| event.id.topic == MISC)?;
        let body: Body<'b> = serde_json::from_slice(&event.body).ok()?;
        let deltas: Vec<Delta<'b>> = body
            .inner
            .funding
            .deltas
            .into_iter()
            .filter_map(|delta| serde_json::from_str::<Delta<'b>>(delta.get()).ok())
            .filter(|delta| delta.user.address() == Some(user))
            .collect();
        (!deltas.is_empty()).then(|| Self { time: time_ms(event), hash: body.hash, deltas })
    }
}

impl Delta<'_> {
    /// Appends it as subscriptions have it, in `userFundings` and `userEvents`:
    ///
    /// ```json
    /// {"time":1781139600039,"coin":"ZEC","usdc":"9.330246","szi":"280.0","fundingRate":"-0.0000810249",
    ///  "nSamples":null}
    /// ```
    pub fn push_event(&self, funding: &Funding<'_>, out: &mut Vec<u8>) {
        write!(out, r#"{{"time":{},"#, funding.time).expect(IN_MEMORY);
        self.push_fields(out);
        out.push(b'}');
    }

    /// Appends it as `userFunding` answers:
    ///
    /// ```json
    /// {"time":1781139600039,"hash":"0x0000..","delta":{"type":"funding","coin":"ZEC","usdc":"9.330246",
    ///  "szi":"280.0","fundingRate":"-0.0000810249","nSamples":null}}
    /// ```
    pub fn push_update(&self, funding: &Funding<'_>, out: &mut Vec<u8>) {
        let (time, hash) = (funding.time, funding.hash.as_written());
        write!(out, r#"{{"time":{time},"hash":"{hash}","delta":{{"type":"funding","#)
            .expect(IN_MEMORY);
        self.push_fields(out);
        out.extend_from_slice(b"}}");
    }

    /// `nSamples` was the number of hours that one row of 2023 summed up. The service sends `null` since rows are
    /// of one hour, as those of nodes are, and clients declare the field.
    fn push_fields(&self, out: &mut Vec<u8>) {
        write!(
            out,
            r#""coin":"{}","usdc":"{}","szi":"{}","fundingRate":"{}","nSamples":null"#,
            self.coin.as_written(),
            self.funding_amount.as_written(),
            self.szi.as_written(),
            self.funding_rate.as_written(),
        )
        .expect(IN_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{FUNDING, misc_event, user};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_funding_has_the_names_of_the_official_protocol_and_the_decimals_of_the_node() {
        let event = misc_event(7, FUNDING);

        let funding = Funding::read(&event).unwrap();

        assert_eq!(
            written(|out| funding.deltas[0].push_event(&funding, out)),
            r#"{"time":1781139600039,"coin":"ZEC","usdc":"9.330246","szi":"280.0","fundingRate":"-0.0000810249","nSamples":null}"#
        );
        assert_eq!(
            written(|out| funding.deltas[0].push_update(&funding, out)),
            concat!(
                r#"{"time":1781139600039,"#,
                r#""hash":"0x0000000000000000000000000000000000000000000000000000000000000000","#,
                r#""delta":{"type":"funding","coin":"ZEC","usdc":"9.330246","szi":"280.0","#,
                r#""fundingRate":"-0.0000810249","nSamples":null}}"#
            )
        );
    }

    #[test]
    fn a_user_gets_all_of_his_deltas_in_their_order_and_nobody_elses() {
        let event = misc_event(7, FUNDING);

        let funding = Funding::read(&event).unwrap();

        let coins: Vec<_> = funding.deltas.iter().map(|delta| delta.coin.as_written()).collect();
        assert_eq!(coins, ["ZEC", "BTC"]);
    }

    #[test]
    fn an_odd_delta_does_not_hide_its_neighbours() {
        let body = FUNDING.replace("\"9.330246\"", "9.330246");
        let event = misc_event(7, &body);

        let funding = Funding::read(&event).unwrap();

        assert_eq!(funding.deltas.len(), 1);
        assert_eq!(funding.deltas[0].coin.as_written(), "BTC");
    }

    #[test]
    fn what_is_no_funding_of_the_user_gives_nothing() {
        let mut nobodys = misc_event(7, FUNDING);
        nobodys.user = None;
        let mut others = misc_event(7, FUNDING);
        others.user = Some(user(9));
        let mut fill = misc_event(7, FUNDING);
        fill.id.topic = crate::official::FILLS;

        for event in [&nobodys, &others, &fill, &misc_event(7, "{}"), &misc_event(7, "[1")] {
            assert!(Funding::read(event).is_none(), "{event:?}");
        }
    }
}
