//! Whose events are kept: the list, where it comes from, and the stage that applies it.

mod change;
mod edit;
mod file;
mod filter;
mod keeper;
mod list;
mod listing;
mod place;
mod redis;
mod set;
mod sources;
mod status;
mod union;

pub use self::{
    change::{ListChanged, ListMark, ListNews, MAX_NAMED, Since, WhitelistChange},
    edit::{Edit, EditFault, Edited},
    file::{FileFault, read as read_list, read_into as read_list_into},
    filter::{ReplaceWhitelist, WhitelistFilter},
    keeper::{ReloadWhitelist, Settle, Unread, WhitelistKeeper},
    list::{AddressList, ListBuilder},
    listing::{AddError, CurrentList, Listing, MAX_ADDITIONS},
    place::{Place, PlaceFault},
    redis::{RedisFault, RedisList, found_within},
    set::{Verdict, Whitelist},
    sources::{Folder, WhitelistError, is_too_much, read_config, read_file, read_redis},
    status::{SourceKind, SourceState, WhitelistState, WhitelistStatus},
    union::Union,
};
