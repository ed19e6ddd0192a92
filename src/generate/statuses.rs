//! Order statuses: the largest of the kinds that a node writes, and one that nobody here reads.

use super::{block::Elements, chain::Moment, text::push_time, text::push_u64};

/// Appends about 500 statuses.
pub(super) fn push(moment: &mut Moment, statuses: &mut Elements) {
    let hash = moment.hash();
    for _ in 0..moment.rng.u32(450..550) {
        let user = moment.users.draw(&mut moment.rng);
        let out = statuses.begin();
        out.extend_from_slice(br#"{"time":""#);
        push_time(out, moment.time_ns);
        out.extend_from_slice(br#"","user":""#);
        out.extend_from_slice(moment.users.text(user));
        out.extend_from_slice(br#"","hash":""#);
        out.extend_from_slice(&hash);
        out.extend_from_slice(br#"","builder":null,"status":"open","order":{"coin":"ETH","side":"B","limitPx":"2104.5","sz":"1.2","oid":"#);
        push_u64(out, moment.rng.u64(300_000_000_000..400_000_000_000));
        out.extend_from_slice(br#","timestamp":"#);
        push_u64(out, (moment.time_ns / 1_000_000) as u64);
        out.extend_from_slice(br#","triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit","origSz":"1.2","tif":"Alo","cloid":null}}"#);
        statuses.end();
    }
}
