//! `[redis]`: what a Redis is used for besides the whitelist.

use super::{
    Config,
    key::{Key, Refused},
    whitelist::{REDIS_URL, RedisUrl, read_redis_url},
};

/// What a Redis is used for besides the whitelist.
#[derive(Clone, Debug, Default)]
pub struct RedisConfig {
    /// Which Redis. Default: that of the whitelist.
    pub url: Option<RedisUrl>,
    /// What is done with the keys in which the older service keeps the positions of its files,
    /// `node_fills_by_block` and `misc_events_by_block`. Default: nothing.
    pub positions: Positions,
}

/// What is done with the positions of the older service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Positions {
    #[default]
    Off,
    /// A stream that was never read before begins where the older service stopped.
    Import,
    /// After commits they are written, so that the older service can go on.
    Mirror,
    ImportAndMirror,
}

impl Positions {
    const ALL: [Self; 4] = [Self::Off, Self::Import, Self::Mirror, Self::ImportAndMirror];

    pub fn imports(self) -> bool {
        matches!(self, Self::Import | Self::ImportAndMirror)
    }

    pub fn mirrors(self) -> bool {
        matches!(self, Self::Mirror | Self::ImportAndMirror)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Import => "import",
            Self::Mirror => "mirror",
            Self::ImportAndMirror => "import-and-mirror",
        }
    }
}

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::optional("redis.url", REDIS_URL, read_redis_url, ToString::to_string, |config| {
            &mut config.redis.url
        }),
        Key::text(
            "redis.positions",
            "\"off\", \"import\", \"mirror\" or \"import-and-mirror\"",
            |text| {
                let found = Positions::ALL.into_iter().find(|positions| positions.name() == text);
                found.ok_or_else(Refused::not_understood)
            },
            |positions| positions.name().to_owned(),
            |config| &mut config.redis.positions,
        ),
    ]
}

impl Config {
    /// The Redis of the positions.
    pub fn positions_url(&self) -> Option<&RedisUrl> {
        self.redis.url.as_ref().or(self.whitelist.redis_url.as_ref())
    }

    pub(super) fn lacks_positions_url(&self) -> bool {
        self.redis.positions != Positions::Off && self.positions_url().is_none()
    }
}
