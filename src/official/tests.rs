//! Bodies that the tests of this module share, its properties, and the real samples.

mod samples;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::{Address, EventId, Keys, Timestamp};

pub const FILL: &str = r#"{"coin":"UNI","px":"3.9457","sz":"3.9","side":"B","time":1773532799991,"startPosition":"53460.3","dir":"Open Long","closedPnl":"0.0","hash":"0xe9ce","oid":349162667230,"crossed":true,"fee":"0.00","tid":868180814349127,"feeToken":"USDC","twapId":null}"#;

/// Fundings of user 7, one of user 8 between them; addresses in any case.
pub const FUNDING: &str = r#"{"time":"2026-06-11T01:00:00.039772125","hash":"0x0000000000000000000000000000000000000000000000000000000000000000","inner":{"Funding":{"deltas":[{"user":"0x0707070707070707070707070707070707070707","coin":"ZEC","funding_amount":"9.330246","szi":"280.0","funding_rate":"-0.0000810249"},{"user":"0x0808080808080808080808080808080808080808","coin":"HYPE","funding_amount":"4.506878","szi":"-2744.84","funding_rate":"0.0000308526"},{"user":"0X0707070707070707070707070707070707070707","coin":"BTC","funding_amount":"-1.10","szi":"2.0","funding_rate":"0.0000125"}]}}}"#;

/// A ledger update whose delta is to be put in for `DELTA`.
pub const SEND: &str = r#"{"time":"2026-06-11T01:00:00.039772125","hash":"0x5a44","inner":{"LedgerUpdate":{"users":["0x0707070707070707070707070707070707070707"],"delta":DELTA}}}"#;

pub fn user(number: u8) -> Address {
    Address([number; 20])
}

pub fn fill_event(position: u64, index: u32, by: u8, body: &str) -> Event {
    Event {
        id: EventId { topic: FILLS, position, index, part: 0 },
        time: Timestamp(1_773_532_799_991_006),
        user: Some(user(by)),
        keys: Keys::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn misc_event(by: u8, body: &str) -> Event {
    let mut event = fill_event(1_030_773_830, 0, by, body);
    event.id.topic = MISC;
    event.time = Timestamp(1_781_139_600_039_772);
    event
}

#[test]
fn a_time_is_the_floor_of_the_blocks_time_in_milliseconds() {
    let mut event = fill_event(1, 0, 7, FILL);
    assert_eq!(time_ms(&event), 1_773_532_799_991);

    event.time = Timestamp(-1);
    assert_eq!(time_ms(&event), -1);
}

/// Reads and writes an event in each shape: nothing here may panic, whatever the bytes.
fn in_all_shapes(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    push_twap_slice_fill(event, &mut out);
    if let Some(trade) = Trade::of(event, event) {
        trade.push(&mut out);
    }
    if let Some(funding) = Funding::read(event) {
        for delta in &funding.deltas {
            delta.push_event(&funding, &mut out);
            delta.push_update(&funding, &mut out);
        }
    }
    if let Some(update) = LedgerUpdate::read(event) {
        update.push(&mut out);
    }
    for body in aggregate([event, event]) {
        out.extend_from_slice(&body);
    }
    out
}

proptest! {
    #[test]
    fn damaged_bodies_never_panic(
        which in 0usize..3,
        is_fill in any::<bool>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..4),
    ) {
        let send = SEND.replace("DELTA", r#"{"type":"send"}"#);
        let mut body = [FILL, FUNDING, &send][which].as_bytes().to_vec();
        for (at, byte, is_cut) in damages {
            let at = at.index(body.len());
            if is_cut && at > 0 {
                body.truncate(at);
            } else {
                body[at] = byte;
            }
        }
        let mut event = if is_fill { fill_event(1, 0, 7, FILL) } else { misc_event(7, FILL) };
        event.body = body.into();

        in_all_shapes(&event);
    }

    #[test]
    fn any_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64), is_fill in any::<bool>()) {
        let mut event = if is_fill { fill_event(1, 0, 7, FILL) } else { misc_event(7, FILL) };
        event.body = body.clone().into();

        in_all_shapes(&event);

        prop_assert_eq!(aggregate([&event]), [body]);
    }

    #[test]
    fn sums_of_sizes_are_what_the_partial_fills_sum_up_to(
        sizes in prop::collection::vec(1u32..1_000_000, 2..20),
    ) {
        let run: Vec<_> = (0u32..)
            .zip(&sizes)
            .map(|(index, size)| {
                let size = format!("\"{}.{:02}\"", size / 100, size % 100);
                fill_event(5, index, 7, &FILL.replace("\"3.9\"", &size))
            })
            .collect();

        let bodies = aggregate(&run);

        prop_assert_eq!(bodies.len(), 1);
        let fill = Fill::of_body(&bodies[0]).unwrap();
        let sum: f64 = fill.sz.as_written().parse().unwrap();
        prop_assert_eq!((sum * 100.0).round() as u32, sizes.iter().sum::<u32>());
        prop_assert_eq!(fill.px.as_written(), "3.9457");
    }
}
