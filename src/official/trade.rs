//! Trades: the two fills of one match, put together.

use std::io::Write as _;

use super::{Fill, IN_MEMORY, fill::Side};
use crate::event::{Address, Event};

/// A trade between two users, of whom each has a fill.
#[derive(Clone, Copy, Debug)]
pub struct Trade<'b> {
    taker: Fill<'b>,
    tid: u64,
    pub buyer: Address,
    pub seller: Address,
}

impl<'b> Trade<'b> {
    /// Puts a taker's fill together with the maker's. `None` when they are not the two sides of one trade, such
    /// as of a dust conversion, or not of one block.
    pub fn of(taker: &'b Event, maker: &Event) -> Option<Self> {
        let fill = Fill::read(taker).filter(|fill| fill.crossed)?;
        let tid = fill.trade()?;
        let is_pair = is_same_block(taker, maker)
            && Fill::read(maker).is_some_and(|other| other.is_other_side_of(&fill));
        let (user, maker) = (taker.user?, maker.user.filter(|_| is_pair)?);
        let (buyer, seller) = match fill.side {
            Side::Buy => (user, maker),
            Side::Sell => (maker, user),
        };
        Some(Self { taker: fill, tid, buyer, seller })
    }

    /// Appends it as the subscription `trades` has it; `side` is the taker's:
    ///
    /// ```json
    /// {"coin":"UNI","side":"B","px":"3.9457","sz":"3.9","hash":"0xe9ce..","time":1773532799991,
    ///  "tid":868180814349127,"users":["0x0104..","0x7279.."]}
    /// ```
    pub fn push(&self, out: &mut Vec<u8>) {
        let Fill { coin, side, px, sz, hash, time, .. } = self.taker;
        write!(
            out,
            r#"{{"coin":"{}","side":"{}","px":"{}","sz":"{}","hash":"{}","time":{time},"tid":{},"users":["{}","{}"]}}"#,
            coin.as_written(),
            side.as_str(),
            px.as_written(),
            sz.as_written(),
            hash.as_written(),
            self.tid,
            self.buyer,
            self.seller,
        )
        .expect(IN_MEMORY);
    }
}

/// Whether both are of one topic and block, and are not the same.
fn is_same_block(one: &Event, other: &Event) -> bool {
    let (one, other) = (one.id, other.id);
    one.topic == other.topic && one.position == other.position && one != other
}

impl Fill<'_> {
    fn is_other_side_of(&self, taker: &Fill<'_>) -> bool {
        self.tid == taker.tid && !self.crossed && self.side != taker.side && self.coin == taker.coin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::official::tests::{FILL, fill_event, user};

    fn maker() -> String {
        FILL.replace("\"side\":\"B\"", "\"side\":\"A\"").replace("true", "false")
    }

    fn written(trade: &Trade<'_>) -> String {
        let mut out = Vec::new();
        trade.push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trade_is_told_once_with_the_side_of_its_taker() {
        let block = [fill_event(5, 0, 7, FILL), fill_event(5, 1, 8, &maker())];

        let [taker, maker] = &block;

        let trade = Trade::of(taker, maker).unwrap();

        assert!(Trade::of(maker, taker).is_none());
        let expected = format!(
            concat!(
                r#"{{"coin":"UNI","side":"B","px":"3.9457","sz":"3.9","hash":"0xe9ce","#,
                r#""time":1773532799991,"tid":868180814349127,"users":["{}","{}"]}}"#
            ),
            user(7),
            user(8)
        );
        assert_eq!(written(&trade), expected);
    }

    #[test]
    fn the_buyer_comes_first_when_the_taker_sells_too() {
        let buyer = maker().replace("\"side\":\"A\"", "\"side\":\"B\"");
        let seller = FILL.replace("\"side\":\"B\"", "\"side\":\"A\"");
        let block = [fill_event(5, 0, 7, &buyer), fill_event(5, 1, 8, &seller)];

        let trade = Trade::of(&block[1], &block[0]).unwrap();

        assert_eq!((trade.buyer, trade.seller), (user(7), user(8)));
        assert!(written(&trade).contains(r#""side":"A""#));
    }

    #[test]
    fn what_has_no_other_side_is_no_trade() {
        let taker = fill_event(5, 0, 7, FILL);
        let elsewhere = fill_event(6, 1, 8, &maker());
        let another = fill_event(5, 1, 8, &maker().replace("868180814349127", "868180814349128"));
        let of_a_coin = fill_event(5, 1, 8, &maker().replace("UNI", "BTC"));
        let same_side = fill_event(5, 1, 8, &FILL.replace("true", "false"));
        let crossed = fill_event(5, 1, 8, &maker().replace("false", "true"));
        let odd = fill_event(5, 1, 8, "{}");

        for other in [&taker, &elsewhere, &another, &of_a_coin, &same_side, &crossed, &odd] {
            assert!(Trade::of(&taker, other).is_none(), "{other:?}");
        }
        assert!(Trade::of(&taker, &fill_event(5, 9, 8, &maker())).is_some());
    }

    #[test]
    fn dust_conversions_share_a_number_and_are_no_trades() {
        let dust = |body: &str| body.replace("868180814349127", "0");
        let block = [fill_event(5, 0, 7, &dust(FILL)), fill_event(5, 1, 8, &dust(&maker()))];

        assert!(Trade::of(&block[0], &block[1]).is_none());
    }
}
