//! Which of a dialect's messages a subscription gets of an event.
//!
//! Most dialects have one form of an event. One of several forms shows the same event to one session in each
//! form that its subscriptions ask for: each is encoded once, for all who want it.

use std::iter;

/// The number of one form, in its dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View(u8);

/// Some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Views(u8);

impl View {
    /// How many a dialect may have.
    pub const COUNT: usize = 8;

    /// # Panics
    /// When the number is not below [`COUNT`](Self::COUNT).
    pub const fn new(number: u8) -> Self {
        assert!((number as usize) < Self::COUNT);
        Self(number)
    }

    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

impl Views {
    pub const NONE: Self = Self(0);

    pub const fn of(view: View) -> Self {
        Self(1 << view.0)
    }

    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u8 {
        self.0
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// From the lowest one on.
    pub fn iter(mut self) -> impl Iterator<Item = View> {
        iter::from_fn(move || {
            let first = (self.0 > 0).then(|| View(self.0.trailing_zeros() as u8));
            self.0 &= self.0.wrapping_sub(1);
            first
        })
    }
}

impl Default for Views {
    fn default() -> Self {
        Self::of(View::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_together_what_each_of_them_is() {
        let some = Views::of(View::new(7)).and(Views::of(View::new(2))).and(Views::default());

        let numbers: Vec<_> = some.iter().map(View::number).collect();

        assert_eq!(numbers, [0, 2, 7]);
        assert_eq!(Views::from_bits(some.bits()), some);
        assert!(Views::NONE.is_empty() && Views::NONE.iter().next().is_none());
    }
}
