//! The negotiation of permessage-deflate: which of a client's offers is taken, and in what words.
//!
//! Invariant: an offer is taken when all of it was understood and can be kept; else it is declined, and
//! the next one looked at (RFC 7692, 5 and 7.1). Declining all of them is no fault: nothing is
//! compressed then.

const NAME: &str = "permessage-deflate";

/// Looks through the values of `Sec-WebSocket-Extensions`, in the client's order of preference. Gives the
/// answer.
pub fn accept<'a>(values: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    // A separator within quotes would be no token, and nothing that we could take.
    values.flat_map(|value| value.split(',')).find_map(answer)
}

/// What an offer asks for, each thing once.
#[derive(Default)]
struct Asked {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: bool,
    client_max_window_bits: bool,
}

fn answer(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(trim);
    if parts.next() != Some(NAME) {
        return None;
    }
    let mut asked = Asked::default();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (trim(name), Some(unquoted(trim(value)))),
            None => (part, None),
        };
        let (seen, is_good) = match name {
            "server_no_context_takeover" => {
                (&mut asked.server_no_context_takeover, value.is_none())
            }
            "client_no_context_takeover" => {
                (&mut asked.client_no_context_takeover, value.is_none())
            }
            // One frame is for all, with the whole window: who has less cannot be served.
            "server_max_window_bits" => {
                (&mut asked.server_max_window_bits, value.and_then(window_bits) == Some(15))
            }
            // A hint that the client would obey a limit. We set none: any window can be inflated.
            "client_max_window_bits" => (
                &mut asked.client_max_window_bits,
                value.is_none_or(|value| window_bits(value).is_some()),
            ),
            _ => return None,
        };
        if std::mem::replace(seen, true) || !is_good {
            return None;
        }
    }
    // Whether or not they were asked for: so nobody keeps anything between two messages.
    Some(match asked.server_max_window_bits {
        false => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        // Has to be repeated to be agreed upon.
        true => {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=15"
        }
    })
}

/// 8 to 15, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits: &u8| bits.to_string() == value)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(values: &[&str]) -> Option<&'static str> {
        accept(values.iter().copied())
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn an_offer_is_taken_without_memory_between_messages() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"15\"",
            "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
            " permessage-deflate ;\tclient_no_context_takeover ; client_max_window_bits = 10 ",
            "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
        ] {
            assert_eq!(answered(&[offer]), Some(PLAIN), "{offer}");
        }
        let whole = "permessage-deflate; server_max_window_bits=15";
        let answer = format!("{PLAIN}; server_max_window_bits=15");
        assert_eq!(answered(&[whole]), Some(&answer[..]));
    }

    #[test]
    fn an_offer_that_is_not_understood_or_cannot_be_kept_is_declined() {
        for offer in [
            "",
            ",",
            "permessage-bzip2",
            "PERMESSAGE-DEFLATE2",
            "permessage-deflate;",
            "permessage-deflate; unknown",
            "permessage-deflate; unknown=1",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=010",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits=\"15",
        ] {
            assert_eq!(answered(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_kept_is_taken_wherever_it_stands() {
        let small = "permessage-deflate; server_max_window_bits=9";

        assert_eq!(answered(&[&format!("{small}, permessage-deflate")]), Some(PLAIN));
        assert_eq!(answered(&[small, "permessage-deflate; client_max_window_bits"]), Some(PLAIN));
        assert_eq!(answered(&[]), None);
    }
}
