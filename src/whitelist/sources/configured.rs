//! The addresses that stand in the configuration itself.

use slog::Logger;

use super::{
    Address, AddressList, Held, Kept, SourceKind, WhitelistConfig, WhitelistError, identity,
};

/// `whitelist.addresses`. It changes by a start alone, and may shrink as it will: nobody empties it
/// by accident.
pub struct ConfigSource {
    pub held: Held,
}

impl ConfigSource {
    /// `None` where no address is configured.
    ///
    /// # Errors
    /// When one is no address.
    pub fn open(
        config: &WhitelistConfig,
        kept: Option<Kept>,
        logger: &Logger,
    ) -> Result<Option<Self>, WhitelistError> {
        let count = config.addresses.len();
        if count == 0 {
            return Ok(None);
        }
        let list = read(config)?;
        let name = format!("{count} configured address{}", if count == 1 { "" } else { "es" });
        let mut held = Held::new(SourceKind::Config, name, identity(&[]), logger);
        held.restore(kept);
        held.take(list, Vec::new(), None)?;
        Ok(Some(Self { held }))
    }
}

/// The configured addresses.
///
/// # Errors
/// When one is no address.
pub fn read(config: &WhitelistConfig) -> Result<AddressList, WhitelistError> {
    let read = |text: &String| {
        let address: Result<Address, _> = text.trim().parse();
        address.map_err(|_| WhitelistError::BadAddress { address: text.clone() })
    };
    config.addresses.iter().map(read).collect()
}
