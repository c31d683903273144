//! Threads that parse, and the queue before them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::cache::{Cache, Key, key};
use crate::parse::{MAX_TEXT, read};
use crate::shape::Shape;
use crate::statement::{Reading, Statement, Unparsed};

/// What is said about a text.
pub type Answer = Result<Arc<[Statement]>, Unparsed>;

/// Stack of each thread, in bytes. The deepest text that the parser takes needs a part of it.
const STACK: usize = 16 << 20;
/// Most texts that wait for a thread. Who has another waits until there is room.
const QUEUE: usize = 256;
/// Memory for answers that may be needed again, in bytes.
const CACHE: usize = 16 << 20;

/// Says what statements are, on threads of its own. When it is dropped, who still waits is told
/// [`Unparsed::Closed`].
pub struct Classifier {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A job has come, or the end.
    ready: Condvar,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Who waits for room, each by its number.
    waiting: BTreeMap<u64, Waker>,
    numbers: u64,
    closed: bool,
}

struct Job {
    text: Bytes,
    reading: Reading,
    /// Of the shape, where there is one.
    key: Key,
    shape: Option<Box<Shape>>,
    slot: Arc<Mutex<Slot>>,
}

/// Where an answer is put, and who is told.
#[derive(Default)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Classifier({} threads)", self.threads.len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Classifier {
    /// A classifier with so many threads, at least one. Each may need 100 MB for the worst text.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            cache: Mutex::new(Cache::new(CACHE)),
        });
        let mut classifier = Self {
            shared,
            threads: Vec::new(),
        };
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&classifier.shared);
            let thread = std::thread::Builder::new()
                .name("sql".to_owned())
                .stack_size(STACK)
                .spawn(move || shared.work())?;
            classifier.threads.push(thread);
        }
        Ok(classifier)
    }

    /// What the statements of a text are. Nothing is done until the answer is awaited, and nothing
    /// more once it is dropped.
    pub fn classify(&self, text: Bytes, reading: Reading) -> Classifying {
        Classifying {
            shared: Arc::clone(&self.shared),
            step: Step::Asked { text, reading },
        }
    }
}

impl Drop for Classifier {
    fn drop(&mut self) {
        let (jobs, waiting) = {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
            let waiting = std::mem::take(&mut queue.waiting);
            (std::mem::take(&mut queue.jobs), waiting)
        };
        self.shared.ready.notify_all();
        for job in jobs {
            answer(&job.slot, Err(Unparsed::Closed));
        }
        waiting.into_values().for_each(Waker::wake);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error; there is nobody else to tell.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            // Only we have it: whoever asked has gone.
            if Arc::strong_count(&job.slot) == 1 {
                continue;
            }
            let parse = || read(&job.text, job.reading);
            let found = catch_unwind(AssertUnwindSafe(parse)).unwrap_or(Err(Unparsed::Failed));
            let found: Answer = found.map(Arc::from);
            self.keep(&job, &found);
            answer(&job.slot, found);
        }
    }

    /// Remembers an answer. What is wrong with a text is not said of its shape.
    fn keep(&self, job: &Job, found: &Answer) {
        let answer = match (&job.shape, found) {
            (None, _) => Some(found.clone()),
            (Some(shape), Ok(statements)) => shape.abstracted(statements).map(Ok),
            (Some(_), Err(_)) => None,
        };
        if let Some(answer) = answer {
            lock(&self.cache).put(job.key, answer);
        }
    }

    /// The next job, when there is one; none at the end.
    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let job = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break job;
            }
            if queue.closed {
                return None;
            }
            queue = self
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        };
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_values().for_each(Waker::wake);
        Some(job)
    }
}

fn answer(slot: &Mutex<Slot>, found: Answer) {
    let waker = {
        let mut slot = lock(slot);
        slot.answer = Some(found);
        slot.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// An answer that is awaited. Any executor will do.
#[must_use = "nothing is done until it is awaited"]
pub struct Classifying {
    shared: Arc<Shared>,
    step: Step,
}

enum Step {
    /// Not looked at yet.
    Asked { text: Bytes, reading: Reading },
    /// Without a place in the queue.
    Waiting { job: Job, number: u64 },
    /// With one.
    Queued(Arc<Mutex<Slot>>),
    /// Answered.
    Done,
}

impl fmt::Debug for Classifying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifying")
    }
}

impl Future for Classifying {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        loop {
            let step = std::mem::replace(&mut self.step, Step::Done);
            self.step = match step {
                Step::Asked { text, reading } => match self.shared.begin(text, reading) {
                    Ok(answer) => return Poll::Ready(answer),
                    Err(waiting) => waiting,
                },
                Step::Waiting { job, number } => match self.shared.enqueue(job, number, context) {
                    Step::Done => return Poll::Ready(Err(Unparsed::Closed)),
                    Step::Queued(slot) => Step::Queued(slot),
                    waiting => {
                        self.step = waiting;
                        return Poll::Pending;
                    }
                },
                Step::Queued(slot) => {
                    if let Some(answer) = taken(&slot, context) {
                        return Poll::Ready(answer);
                    }
                    self.step = Step::Queued(slot);
                    return Poll::Pending;
                }
                // Polled after its answer.
                Step::Done => return Poll::Ready(Err(Unparsed::Closed)),
            };
        }
    }
}

fn taken(slot: &Mutex<Slot>, context: &Context<'_>) -> Option<Answer> {
    let mut slot = lock(slot);
    let answer = slot.answer.take();
    if answer.is_none() {
        slot.waker = Some(context.waker().clone());
    }
    answer
}

impl Shared {
    /// The answer where it is known, or the job that gets it.
    fn begin(&self, text: Bytes, reading: Reading) -> Result<Answer, Step> {
        if text.len() > MAX_TEXT {
            return Ok(Err(Unparsed::TooLarge(text.len())));
        }
        let shape = Shape::of(&text).map(Box::new);
        let key = match &shape {
            Some(shape) => key(true, &shape.text, reading),
            None => key(false, &text, reading),
        };
        let known = lock(&self.cache).get(&key);
        match (known, &shape) {
            (Some(answer), None) => return Ok(answer),
            (Some(Ok(statements)), Some(shape)) => {
                if let Some(restored) = shape.restored(&statements) {
                    return Ok(Ok(restored));
                }
            }
            (Some(Err(_)) | None, _) => {}
        }
        let mut queue = lock(&self.queue);
        queue.numbers += 1;
        let job = Job {
            text,
            reading,
            key,
            shape,
            slot: Arc::default(),
        };
        let number = queue.numbers;
        Err(Step::Waiting { job, number })
    }

    /// Puts a job into the queue, or leaves word where it is full.
    fn enqueue(&self, job: Job, number: u64, context: &Context<'_>) -> Step {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Step::Done;
        }
        if queue.jobs.len() >= QUEUE {
            queue.waiting.insert(number, context.waker().clone());
            return Step::Waiting { job, number };
        }
        let slot = Arc::clone(&job.slot);
        queue.jobs.push_back(job);
        drop(queue);
        self.ready.notify_one();
        Step::Queued(slot)
    }
}

impl Drop for Classifying {
    fn drop(&mut self) {
        if let Step::Waiting { number, .. } = &self.step {
            lock(&self.shared.queue).waiting.remove(number);
        }
    }
}
