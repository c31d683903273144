//! Who waits for what is recorded, and how they are told.

use std::sync::{Arc, Mutex, PoisonError};

use ascribe_core::record::{Receipt, RecordError};
use tokio::sync::oneshot;

pub(crate) type Answer = Result<Receipt, RecordError>;

/// Where the answer to one draft goes.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To whoever waits for it alone.
    One(oneshot::Sender<Answer>),
    /// To whoever waits for several.
    Of(Part<Receipt>),
    /// The same, without a receipt.
    Done(Part<()>),
}

impl Reply {
    /// Is it the only one, or the first, that somebody waits for?
    pub(crate) fn is_first(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Of(part) => part.at == 0,
            Self::Done(part) => part.at == 0,
        }
    }

    /// Tells that nothing came of it.
    pub(crate) fn refuse(self, error: RecordError) {
        match self {
            Self::One(reply) => drop(reply.send(Err(error))),
            Self::Of(part) => part.tell(Err(error)),
            Self::Done(part) => part.tell(Err(error)),
        }
    }

    /// Tells that the entry is durable. Whoever asked may have gone: the entry stays, and the same id gets
    /// the same receipt.
    pub(crate) fn tell(self, receipt: Receipt) {
        match self {
            Self::One(reply) => drop(reply.send(Ok(receipt))),
            Self::Of(part) => part.tell(Ok(receipt)),
            Self::Done(part) => part.tell(Ok(())),
        }
    }
}

/// One of several answers that somebody waits for at once.
#[derive(Debug)]
pub(crate) struct Part<T> {
    of: Arc<Mutex<Together<T>>>,
    at: usize,
}

#[derive(Debug)]
struct Together<T> {
    answers: Vec<Option<Result<T, RecordError>>>,
    left: usize,
    reply: Option<oneshot::Sender<Vec<Result<T, RecordError>>>>,
}

/// Several answers, and where they are awaited. One that is dropped instead of told ends the wait.
pub(crate) fn parts<T>(
    count: usize,
) -> (
    impl Iterator<Item = Part<T>>,
    oneshot::Receiver<Vec<Result<T, RecordError>>>,
) {
    let (reply, answers) = oneshot::channel();
    let of = Arc::new(Mutex::new(Together {
        answers: (0..count).map(|_| None).collect(),
        left: count,
        reply: Some(reply),
    }));
    let part = move |at| Part {
        of: Arc::clone(&of),
        at,
    };
    ((0..count).map(part), answers)
}

impl<T> Part<T> {
    /// Everybody is told when the last one is there.
    pub(crate) fn tell(self, answer: Result<T, RecordError>) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = of.answers.get_mut(self.at) else {
            return;
        };
        *slot = Some(answer);
        of.left -= 1;
        if of.left > 0 {
            return;
        }
        let answers = std::mem::take(&mut of.answers).into_iter().flatten();
        if let Some(reply) = of.reply.take() {
            // Whoever asked may have gone.
            drop(reply.send(answers.collect()));
        }
    }
}
