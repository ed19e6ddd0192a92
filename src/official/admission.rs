//! What a client may ask for about users who are not on the whitelist.

use std::fmt;

use crate::{
    client::Client,
    config::{OfficialConfig, Unlisted},
};

/// What becomes of a client's subscription to users who are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is refused.
    Refused(Refusal),
    /// It is taken, and stays empty as long as they are not listed.
    Accepted,
    /// They are listed by it.
    Added,
}

/// Why a client cannot have them listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No client can.
    Nobody,
    /// No trusted proxy says who it is.
    NoIdentity,
    /// Others can.
    NotThisOne,
}

impl Admission {
    pub fn of(config: &OfficialConfig, client: &Client) -> Self {
        match (config.unlisted, client.identity.as_deref()) {
            (Unlisted::Reject, _) => Self::Refused(Refusal::Nobody),
            (Unlisted::Accept, _) => Self::Accepted,
            (Unlisted::Add, None) => Self::Refused(Refusal::NoIdentity),
            (Unlisted::Add, Some(identity)) => {
                match config.may_add.iter().any(|one| one == identity) {
                    true => Self::Added,
                    false => Self::Refused(Refusal::NotThisOne),
                }
            }
        }
    }
}

/// What is said behind "not on the whitelist". Without braces: clients look for their JSON in the text.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "",
            Self::NoIdentity => ", and only clients whom a trusted proxy names can add users to it",
            Self::NotThisOne => ", and this client is none of those who may add users to it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_add_is_named_by_a_proxy_and_by_the_operator() {
        let of = |unlisted, identity: Option<&str>| {
            let may_add = vec!["ann".to_owned(), "bob@example.org".to_owned()];
            let config = OfficialConfig { unlisted, may_add, ..OfficialConfig::default() };
            let client = Client { identity: identity.map(Into::into), ..Client::default() };
            Admission::of(&config, &client)
        };

        for identity in [None, Some("ann"), Some("eve")] {
            let refused = Admission::Refused(Refusal::Nobody);
            assert_eq!(of(Unlisted::Reject, identity), refused);
            assert_eq!(of(Unlisted::Accept, identity), Admission::Accepted);
        }
        let not_this_one = Admission::Refused(Refusal::NotThisOne);
        for (identity, admission) in [
            (None, Admission::Refused(Refusal::NoIdentity)),
            (Some("ann"), Admission::Added),
            (Some("bob@example.org"), Admission::Added),
            (Some("eve"), not_this_one),
            (Some("Ann"), not_this_one),
            (Some("ann@example.org"), not_this_one),
            (Some("bob"), not_this_one),
            (Some(""), not_this_one),
        ] {
            assert_eq!(of(Unlisted::Add, identity), admission, "{identity:?}");
        }
    }

    #[test]
    fn nobody_may_add_who_was_not_named_and_strangers_are_refused_by_default() {
        let client = Client { identity: Some("ann".into()), ..Client::default() };
        let config = OfficialConfig::default();
        let adding = OfficialConfig { unlisted: Unlisted::Add, ..config.clone() };

        assert_eq!(Admission::of(&config, &client), Admission::Refused(Refusal::Nobody));
        assert_eq!(Admission::of(&adding, &client), Admission::Refused(Refusal::NotThisOne));
    }
}
