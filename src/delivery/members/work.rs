//! How much one turn of a shard may do before its thread has to come back to its other tasks.

/// Events, and frames that are queued for them: what is left of a turn, or what a part of it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub events: usize,
    pub frames: usize,
}

impl Work {
    /// A whole turn. So many frames are some 5 ms where they are put together, and four times as much where each
    /// is queued by itself.
    pub const TURN: Self = Self { events: 512, frames: 131_072 };

    /// Nothing is left.
    pub fn is_spent(self) -> bool {
        self.events == 0 || self.frames == 0
    }

    /// Takes off what was done, which may be a little more than is left.
    pub fn spend(&mut self, done: Self) {
        self.events = self.events.saturating_sub(done.events);
        self.frames = self.frames.saturating_sub(done.frames);
    }
}
