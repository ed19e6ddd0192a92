//! The events of a run and who wants which: both follow from an event's number alone, so that the
//! driver can say what every client must receive without remembering anything.
//!
//! User, coin and side of event `n` are `n` modulo something. So what a subscription matches is
//! always "every m-th event, beginning with the r-th", whatever it filters by.

use std::ops::Range;

/// Coins that are traded.
const COINS: u64 = 16;

/// What the events of a run look like.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Users who trade, one after the other.
    pub users: u64,
    /// Bytes of an event in the node's file.
    pub event_bytes: usize,
}

/// What one subscription wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Everything,
    User(u64),
    Coin(u64),
    /// A coin and a side: the `where` of two keys.
    CoinAndSide(u64, u64),
}

/// Every `step`-th event, beginning with number `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    step: u64,
    first: u64,
}

impl Share {
    /// The first event of this share at or behind a number.
    pub fn next(&self, from: u64) -> u64 {
        let step = self.step;
        if from <= self.first {
            return self.first;
        }
        self.first + (from - self.first).div_ceil(step) * step
    }

    /// How many events of a range belong to it.
    pub fn count(&self, range: Range<u64>) -> u64 {
        let first = self.next(range.start);
        if first >= range.end { 0 } else { (range.end - 1 - first) / self.step + 1 }
    }

    /// The event of this share that follows one of them.
    pub fn behind(&self, event: u64) -> u64 {
        event + self.step
    }

    /// Whether an event belongs to it.
    pub fn has(&self, event: u64) -> bool {
        self.next(event) == event
    }
}

impl Traffic {
    pub fn share(&self, wish: Wish) -> Share {
        match wish {
            Wish::Everything => Share { step: 1, first: 0 },
            Wish::User(user) => Share { step: self.users, first: user },
            Wish::Coin(coin) => Share { step: COINS, first: coin },
            Wish::CoinAndSide(coin, side) => Share { step: 2 * COINS, first: coin + COINS * side },
        }
    }

    /// The message that asks for it, from now on or from behind a cursor.
    pub fn subscribe(&self, wish: Wish, from: Option<&str>) -> String {
        let mut text = String::from(r#"{"type":"subscribe","id":"load","topic":"fills""#);
        match wish {
            Wish::Everything => {}
            Wish::User(user) => text += &format!(r#","users":["{}"]"#, address(user)),
            Wish::Coin(coin) => text += &format!(r#","where":{{"coin":"{}"}}"#, coin_name(coin)),
            Wish::CoinAndSide(coin, side) => {
                let (coin, side) = (coin_name(coin), side_name(side));
                text += &format!(r#","where":{{"coin":"{coin}","side":"{side}"}}"#);
            }
        }
        if let Some(cursor) = from {
            text += &format!(r#","from":"{cursor}""#);
        }
        text.push('}');
        text
    }

    /// The same in the official protocol, which has users only.
    pub fn subscribe_officially(&self, wish: Wish, cursor: Option<&str>) -> String {
        let users: Vec<_> = match wish {
            Wish::User(user) => vec![address(user)],
            Wish::Everything | Wish::Coin(_) | Wish::CoinAndSide(..) => {
                (0..self.users).map(address).collect()
            }
        };
        let users = users.join("\",\"");
        let cursor = cursor.map_or(String::new(), |cursor| format!(r#","cursor":"{cursor}""#));
        format!(
            r#"{{"method":"subscribe","subscription":{{"type":"userFills","users":["{users}"],"snapshot":false{cursor}}}}}"#
        )
    }

    /// The same in the query of a request.
    pub fn query(&self, wish: Wish) -> String {
        match wish {
            Wish::Everything => String::new(),
            Wish::User(user) => format!("&user={}", address(user)),
            Wish::Coin(coin) => format!("&coin={}", coin_name(coin)),
            Wish::CoinAndSide(coin, side) => {
                format!("&coin={}&side={}", coin_name(coin), side_name(side))
            }
        }
    }

    /// Appends the line of one block as the node writes it, with its newline.
    pub fn push_line(&self, out: &mut String, block: u64, time: &str, events: Range<u64>) {
        *out += &format!(
            r#"{{"local_time":"{time}","block_time":"{time}","block_number":{block},"events":["#
        );
        for event in events.clone() {
            if event != events.start {
                out.push(',');
            }
            *out += &format!(r#"["{}",{}]"#, address(event % self.users), self.body(event));
        }
        out.push_str("]}\n");
    }

    /// The fill itself, which a client gets as `data`, byte by byte. A note at its end gives it its
    /// size.
    pub fn body(&self, event: u64) -> String {
        /// `["0x..",` and `]`: what an event has besides its body.
        const AROUND: usize = 47;
        const NOTE: &str = r#","note":""}"#;
        let (coin, side) = (coin_name(event % COINS), side_name(event / COINS % 2));
        let tid = 100_000_000_000_000 + event;
        let body = format!(
            r#"{{"coin":"{coin}","px":"3.9457","sz":"3.9","side":"{side}","time":1773532799991,"startPosition":"12817942.2417900003","dir":"Open Long","closedPnl":"0.0","hash":"0x{event:064x}","oid":349162667230,"crossed":true,"fee":"-0.000461","tid":{tid},"feeToken":"USDC""#
        );
        let more = self.event_bytes.saturating_sub(body.len() + NOTE.len() + AROUND);
        format!(r#"{body},"note":"{:.<more$}"}}"#, "")
    }
}

/// A share of all sessions each: what a run's clients ask for.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Name and weight.
    parts: Vec<(Part, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    User,
    Coin,
    Where,
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |text: &str| {
            let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
            let part = match name {
                "all" => Part::All,
                "user" => Part::User,
                "coin" => Part::Coin,
                "where" => Part::Where,
                other => return Err(format!("{other:?} is none of all, user, coin, where")),
            };
            match weight.parse() {
                Ok(0) | Err(_) => Err(format!("{weight:?} is no weight")),
                Ok(weight) => Ok((part, weight)),
            }
        };
        Ok(Self { parts: text.split(',').map(part).collect::<Result<_, _>>()? })
    }
}

impl Mix {
    pub fn everything() -> Self {
        Self { parts: vec![(Part::All, 1)] }
    }

    /// What the `nth` client of this mix asks for: weights hold in every stretch of clients, and
    /// each user is somebody's.
    pub fn wish(&self, nth: u64, traffic: &Traffic) -> Wish {
        let sum: u64 = self.parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = nth % sum;
        let mut chosen = Part::All;
        for &(part, weight) in &self.parts {
            chosen = part;
            if at < u64::from(weight) {
                break;
            }
            at -= u64::from(weight);
        }
        match chosen {
            Part::All => Wish::Everything,
            Part::User => Wish::User(nth % traffic.users),
            Part::Coin => Wish::Coin(nth / sum % COINS),
            Part::Where => Wish::CoinAndSide(nth / sum % COINS, nth / sum / COINS % 2),
        }
    }
}

fn address(user: u64) -> String {
    format!("0x{:040x}", user + 1)
}

fn coin_name(coin: u64) -> String {
    format!("LOAD{coin:02}")
}

fn side_name(side: u64) -> &'static str {
    if side == 0 { "B" } else { "A" }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TRAFFIC: Traffic = Traffic { users: 100, event_bytes: 400 };

    /// What the daemon does with a filter, by the text of an event.
    fn matches(wish: Wish, user: &str, body: &Value) -> bool {
        match wish {
            Wish::Everything => true,
            Wish::User(wanted) => user == address(wanted),
            Wish::Coin(coin) => body["coin"] == coin_name(coin),
            Wish::CoinAndSide(coin, side) => {
                body["coin"] == coin_name(coin) && body["side"] == side_name(side)
            }
        }
    }

    #[test]
    fn a_share_is_what_a_filter_lets_through() {
        let mut line = String::new();
        TRAFFIC.push_line(&mut line, 7, "2026-03-15T09:00:00", 0..1_000);
        let line: Value = serde_json::from_str(&line).unwrap();
        let events = line["events"].as_array().unwrap();

        for wish in [
            Wish::Everything,
            Wish::User(42),
            Wish::Coin(3),
            Wish::CoinAndSide(15, 0),
            Wish::CoinAndSide(0, 1),
        ] {
            let share = TRAFFIC.share(wish);
            let through: Vec<u64> = (0..1_000)
                .filter(|&nth| {
                    let event = &events[nth as usize];
                    matches(wish, event[0].as_str().unwrap(), &event[1])
                })
                .collect();
            let ours: Vec<u64> = (0..1_000).filter(|&nth| share.has(nth)).collect();
            assert_eq!(through, ours, "{wish:?}");
            for range in [0..1_000, 17..900, 5..5, 999..1_000] {
                let count = through.iter().filter(|nth| range.contains(*nth)).count() as u64;
                assert_eq!(share.count(range), count, "{wish:?}");
            }
            assert_eq!(share.behind(through[0]), share.next(through[0] + 1));
        }
    }

    #[test]
    fn events_have_the_size_that_was_asked_for() {
        for event_bytes in [400, 1_000, 20_000] {
            let traffic = Traffic { users: 10, event_bytes };
            let (mut one, mut two) = (String::new(), String::new());
            traffic.push_line(&mut one, 1, "t", 0..1);
            traffic.push_line(&mut two, 1, "t", 0..2);

            assert_eq!(two.len() - one.len() - ",".len(), event_bytes);
        }
    }

    #[test]
    fn a_body_is_the_same_by_itself_and_in_its_line() {
        let mut line = String::new();
        TRAFFIC.push_line(&mut line, 1, "t", 5..6);

        assert!(line.contains(&TRAFFIC.body(5)));
        serde_json::from_str::<Value>(&TRAFFIC.body(5)).unwrap();
    }

    #[test]
    fn subscriptions_are_json_with_what_they_want() {
        let text = TRAFFIC.subscribe(Wish::CoinAndSide(1, 1), Some("1.5f"));

        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["where"]["coin"], "LOAD01");
        assert_eq!(message["where"]["side"], "A");
        assert_eq!(message["from"], "1.5f");
        for wish in [Wish::Everything, Wish::User(1), Wish::Coin(1)] {
            serde_json::from_str::<Value>(&TRAFFIC.subscribe(wish, None)).unwrap();
        }
    }

    #[test]
    fn a_mix_gives_each_part_its_weight() {
        let mix: Mix = "all=1,user=7,where=2".parse().unwrap();

        let wishes: Vec<Wish> = (0..1_000).map(|nth| mix.wish(nth, &TRAFFIC)).collect();

        let users = wishes.iter().filter(|wish| matches!(wish, Wish::User(_))).count();
        let all = wishes.iter().filter(|wish| matches!(wish, Wish::Everything)).count();
        assert_eq!((users, all), (700, 100));
        assert!("all=0".parse::<Mix>().is_err());
        assert!("some=1".parse::<Mix>().is_err());
    }
}
