//! What is still to be back-filled by list, kept where every machine that may write finds it.
//!
//! Place: beside the rows and under the same lease; the jobs' progress through the files of one
//! machine stays on that machine. Invariant: whoever is on the list has all that lies below the
//! checkpoints, except what the jobs still bring.

use super::{
    StoreError,
    records::{signed, unsigned},
};
use crate::{event::Address, whitelist::ListMark};

/// Bytes of an address.
const ADDRESS_BYTES: usize = 20;

/// The list that the last writer knew, and what is to be done for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// `None`: no writer has told of one.
    pub list: Option<ListMark>,
    /// In the order of their names.
    pub jobs: Vec<PendingJob>,
}

/// A list's mark as columns: digest and size.
pub type MarkRow = (i64, Option<i64>);

impl Pending {
    /// Takes what the tables hold.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for what was not written by [`Self::mark_row`] and
    /// [`PendingJob::users_column`].
    pub fn read(
        list: Option<MarkRow>,
        jobs: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<Self, StoreError> {
        let read = |(digest, size): MarkRow| {
            let size = size.map(|size| unsigned(size, "size of the list")).transpose()?;
            Ok::<_, StoreError>(ListMark { digest: digest as u64, size })
        };
        let list = list.map(read).transpose()?;
        let jobs = jobs.into_iter().map(|(name, users)| PendingJob::read(name, users));
        Ok(Self { list, jobs: jobs.collect::<Result<_, _>>()? })
    }

    /// The list's mark as columns.
    pub fn mark_row(&self) -> Result<Option<MarkRow>, StoreError> {
        let Some(ListMark { digest, size }) = self.list else { return Ok(None) };
        let size = size.map(|size| signed(size, "size of the list")).transpose()?;
        Ok(Some((digest as i64, size)))
    }
}

/// A back-fill that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingJob {
    pub name: String,
    /// `None`: everybody on the list.
    pub users: Option<Vec<Address>>,
}

impl PendingJob {
    /// The users as one column.
    pub fn users_column(&self) -> Option<Vec<u8>> {
        Some(self.users.as_ref()?.iter().flat_map(|user| user.0).collect())
    }

    /// Reads what [`Self::users_column`] wrote.
    pub fn read(name: String, users: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let read = |bytes: Vec<u8>| match bytes.as_chunks::<ADDRESS_BYTES>() {
            (users, []) => Ok(users.iter().copied().map(Address).collect()),
            _ => Err(StoreError::Unusable(format!("the users of {name} are not addresses"))),
        };
        let users = users.map(read).transpose()?;
        Ok(Self { name, users })
    }
}
