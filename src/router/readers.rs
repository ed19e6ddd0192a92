//! Who is woken when the log has grown.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use actix::{Message, Recipient};

/// The log has grown. At most one of these is under way to each reader.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Appended;

/// The readers of the log: `DbWriter`, and one shard per HTTP worker.
#[derive(Default)]
pub struct Readers(Mutex<Vec<Arc<Reader>>>);

/// What a reader is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Clients wait for it: it is woken first. To wake a thread on a processor that sleeps takes
    /// some ten microseconds.
    Delivery,
    /// It lets events gather in any case.
    Storing,
}

/// One reader's bell.
pub struct Reader {
    rung: AtomicBool,
    listening: AtomicBool,
    purpose: Purpose,
    recipient: Recipient<Appended>,
}

impl Readers {
    /// Adds a reader, which listens; it starts where the log is when it first reads.
    pub fn register(&self, recipient: Recipient<Appended>, purpose: Purpose) -> Arc<Reader> {
        let reader = Arc::new(Reader {
            rung: AtomicBool::new(false),
            listening: AtomicBool::new(true),
            purpose,
            recipient,
        });
        self.lock().push(reader.clone());
        reader
    }

    /// Wakes all who listen, after something was appended; readers that are gone are forgotten.
    pub fn wake(&self) {
        // See `Reader::listen`.
        fence(Ordering::SeqCst);
        let mut readers = self.lock();
        readers.retain(|reader| reader.recipient.connected());
        for purpose in [Purpose::Delivery, Purpose::Storing] {
            readers.iter().filter(|reader| reader.purpose == purpose).for_each(|one| one.ring());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The reader calls this when it has been woken and before it reads, so that what is appended
    /// afterwards wakes it again.
    pub fn answered(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// The reader tells whether it wants to be woken. After it began to listen it has to look at the
    /// log once; from there on nothing is appended without a ring.
    pub fn listen(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
        // Either the one who appends sees that we listen, or we see what was appended.
        fence(Ordering::SeqCst);
    }

    fn ring(&self) {
        if self.listening.load(Ordering::Relaxed) && !self.rung.swap(true, Ordering::AcqRel) {
            self.recipient.do_send(Appended);
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({})", self.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;

    use super::*;

    /// Notes its name at each ring, and does not answer.
    struct Noting(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Actor for Noting {
        type Context = Context<Self>;
    }

    impl Handler<Appended> for Noting {
        type Result = ();

        fn handle(&mut self, _: Appended, _: &mut Self::Context) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    /// Answered when the rings before it are noted.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Noted;

    impl Handler<Noted> for Noting {
        type Result = ();

        fn handle(&mut self, _: Noted, _: &mut Self::Context) {}
    }

    #[actix_rt::test]
    async fn who_listens_is_rung_once_until_it_answers() {
        let readers = Readers::default();
        let rung = Arc::new(Mutex::new(Vec::new()));
        let shard = Noting("shard", rung.clone()).start();
        let writer = Noting("writer", rung.clone()).start();
        let storing = readers.register(writer.clone().recipient(), Purpose::Storing);
        let delivery = readers.register(shard.clone().recipient(), Purpose::Delivery);
        let heard = async || {
            shard.send(Noted).await.unwrap();
            writer.send(Noted).await.unwrap();
            std::mem::take(&mut *rung.lock().unwrap())
        };

        readers.wake();
        readers.wake();
        assert_eq!(heard().await, ["shard", "writer"]);

        storing.answered();
        delivery.answered();
        delivery.listen(false);
        readers.wake();
        assert_eq!(heard().await, ["writer"]);

        delivery.listen(true);
        storing.answered();
        readers.wake();
        assert_eq!(heard().await, ["shard", "writer"]);
    }
}
