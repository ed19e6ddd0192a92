//! What a client knows of gaps.

use crate::event::{Topic, position_of};

/// A position of each of some topics, to tell which gaps a client knows by where they end.
#[derive(Debug, Default)]
pub struct Heard(Vec<(Topic, u64)>);

impl Heard {
    /// All of these topics as far as they have come.
    pub fn all(topics: &[Topic], heads: &[(Topic, u64)]) -> Self {
        Self(topics.iter().map(|&topic| (topic, position_of(heads, topic).unwrap_or(0))).collect())
    }

    pub fn of(&self, topic: Topic) -> Option<u64> {
        position_of(&self.0, topic)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Topic, u64)> {
        self.0.iter().copied()
    }

    /// Goes back to a position of a topic, which may be new. Gives whether that changes anything.
    pub fn lower(&mut self, topic: Topic, position: u64) -> bool {
        match self.0.iter_mut().find(|(known, _)| *known == topic) {
            Some((_, lowest)) if *lowest <= position => return false,
            Some((_, lowest)) => *lowest = position,
            None => self.0.push((topic, position)),
        }
        true
    }

    /// Goes on to where topics have come.
    pub fn raise(&mut self, heads: &[(Topic, u64)]) {
        for (topic, heard) in &mut self.0 {
            *heard = position_of(heads, *topic).unwrap_or(0).max(*heard);
        }
    }

    /// Forgets other topics than these.
    pub fn keep(&mut self, topics: &[Topic]) {
        self.0.retain(|(topic, _)| topics.contains(topic));
    }
}
