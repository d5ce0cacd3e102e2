//! The queue of requests for the kernel, and where its answers go (`occlum_abi::control`).

use crate::instance::Instance;
use crate::ocall::end;
use crate::sys;
use crate::terminal;
use occlum_abi::control::{Answer, FIRST_PROGRAM, Numbered, Request};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a vCPU may take to look up before the next is told.
const PATIENCE: Duration = Duration::from_millis(5);
/// After this the kernel is taken for dead.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Requests {
    state: Mutex<State>,
    taken: Condvar,
    last: AtomicU64,
    /// The kernel takes requests.
    is_ready: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, Vec<u8>)>,
    listeners: BTreeMap<u64, Sender<Answer>>,
    /// Taken out of the queue because the kernel has no room for them.
    too_large: BTreeSet<u64>,
    on_ready: Option<Box<dyn FnOnce() + Send>>,
}

/// Why the kernel does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It does not look up.
    Dead,
    TooLarge,
}

/// A request that was taken.
pub struct Asked {
    pub number: u64,
    pub answers: Receiver<Answer>,
}

impl Instance {
    /// Hands a request to the kernel and waits until it has it.
    pub fn ask(&self, request: Request) -> Result<Asked, NotTaken> {
        let number = self.requests.last.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes =
            postcard::to_allocvec(&Numbered { number, request }).map_err(|_| NotTaken::TooLarge)?;
        let (listener, answers) = channel();
        {
            let mut state = self.requests.lock();
            state.listeners.insert(number, listener);
            state.queue.push_back((number, bytes));
            self.shared().requests.store(1, Ordering::SeqCst);
        }
        let is_taken = self.press(number);
        let mut state = self.requests.lock();
        let is_too_large = state.too_large.remove(&number);
        if is_taken && !is_too_large {
            return Ok(Asked { number, answers });
        }
        state.queue.retain(|(queued, _)| *queued != number);
        state.listeners.remove(&number);
        Err(match is_too_large {
            true => NotTaken::TooLarge,
            false => NotTaken::Dead,
        })
    }

    /// The first answer to a request.
    pub fn ask_once(&self, request: Request) -> Option<Answer> {
        let asked = self.ask(request).ok()?;
        asked.answers.recv_timeout(LIMIT).ok()
    }

    /// Rouses one vCPU after the other until the request is taken.
    fn press(&self, number: u64) -> bool {
        let end = Instant::now() + LIMIT;
        let is_queued = |state: &State| state.queue.iter().any(|(queued, _)| *queued == number);
        for vcpu in (0..self.vcpus).cycle() {
            if !self.parking.wake_any(usize::MAX) {
                self.parking.rouse(vcpu);
            }
            let state = self.requests.lock();
            let wait = self
                .requests
                .taken
                .wait_timeout_while(state, PATIENCE, |state| is_queued(state));
            let (state, _) = wait.unwrap_or_else(|poisoned| poisoned.into_inner());
            if !is_queued(&state) {
                return true;
            }
            // While it boots it takes nothing.
            if self.requests.is_ready() && Instant::now() >= end {
                break;
            }
        }
        false
    }
}

impl Requests {
    /// What to do once the kernel takes requests.
    pub fn set_on_ready(&self, act: impl FnOnce() + Send + 'static) {
        self.lock().on_ready = Some(Box::new(act));
    }

    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// The next request for the kernel, of at most `room` bytes; a larger one is refused.
    pub fn take(&self, room: usize, is_empty: impl FnOnce()) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let mut taken = None;
        while taken.is_none() {
            let Some((number, bytes)) = state.queue.pop_front() else {
                is_empty();
                break;
            };
            if bytes.len() > room {
                state.too_large.insert(number);
            } else {
                taken = Some(bytes);
            }
        }
        self.taken.notify_all();
        taken
    }

    /// Gives an answer to who asked.
    pub fn answer(&self, number: u64, answer: Answer) {
        if number == FIRST_PROGRAM {
            return self.first_program(&answer);
        }
        self.lock().tell(number, answer);
    }

    fn first_program(&self, answer: &Answer) {
        match *answer {
            Answer::Ready => {
                self.is_ready.store(true, Ordering::Release);
                let act = self.lock().on_ready.take();
                act.into_iter().for_each(|act| act());
            }
            Answer::Stopped { signal, everybody } if everybody && is_by_terminal(signal) => {
                // As a program that is stopped: whoever started it sees it stop, and can continue it.
                let _ = kill_process(getpid(), Signal::STOP);
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn tell(&mut self, number: u64, answer: Answer) {
        let is_last = !matches!(
            answer,
            Answer::Started { .. } | Answer::Stopped { .. } | Answer::Continued
        );
        let listener = if is_last {
            self.listeners.remove(&number)
        } else {
            self.listeners.get(&number).cloned()
        };
        // Who no longer listens does not care.
        let _ = listener.map(|listener| listener.send(answer));
    }
}

fn is_by_terminal(signal: i32) -> bool {
    [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// Ends the process as a signal to the program would, when the kernel can't be asked to.
pub fn die_by(signal: i32) -> ! {
    terminal::restore();
    let _ = sys::reset_handler(signal);
    let _ = sys::signal_thread(sys::thread_id(), signal);
    end(signal.unsigned_abs().into())
}
