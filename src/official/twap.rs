//! TWAP slice fills: the fills of orders that are filled over time.

use super::Fill;
use crate::event::Event;

/// Appends a fill as `userTwapSliceFills` has it, `{"fill":{..},"twapId":1671203}`, the fill byte by
/// byte; false, and nothing is appended, when it is no slice of a TWAP order.
pub fn push_twap_slice_fill(event: &Event, out: &mut Vec<u8>) -> bool {
    let Some(twap_id) = Fill::read(event).and_then(|fill| fill.twap_id) else { return false };
    out.extend_from_slice(br#"{"fill":"#);
    out.extend_from_slice(&event.body);
    out.extend_from_slice(br#","twapId":"#);
    out.extend_from_slice(twap_id.get().as_bytes());
    out.push(b'}');
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{FILL, fill_event};

    #[test]
    fn a_slice_is_its_fill_unchanged_and_the_number_of_its_order() {
        let body = FILL.replace("\"twapId\":null", "\"twapId\":1671203, \"new\":1.50");
        let mut out = b"[".to_vec();

        assert!(push_twap_slice_fill(&fill_event(1, 0, 7, &body), &mut out));

        let expected = format!(r#"[{{"fill":{body},"twapId":1671203}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_fill_of_no_twap_order_appends_nothing() {
        let without = FILL.replace(",\"twapId\":null", "");
        for body in [FILL, &without, "{}"] {
            let mut out = b"[".to_vec();

            assert!(!push_twap_slice_fill(&fill_event(1, 0, 7, body), &mut out), "{body}");
            assert_eq!(out, b"[");
        }
    }
}
