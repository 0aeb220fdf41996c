//! Brings together a sample, which the kernel took, and the answer that the hooks of the program gave in a signal
//! handler at the same instruction. They come on two ways, in any order, and either can be missing.
//!
//! They belong together if thread and interrupted instruction are the same, and what the signal carried, where the
//! kernel can send such a cookie (`bpf_send_signal_task`, Linux 6.13). Without one, a thread that is interrupted at one
//! instruction again and again gets its answers in the order of its samples.
//!
//! Each sample comes out exactly once, with its answer or, when that has not come after [`WAIT_NS`], without. There is
//! no clock here: time is that of the samples.

use super::Answer;
use std::collections::VecDeque;

/// How long a sample waits for its answer, in nanoseconds.
pub const WAIT_NS: u64 = 100_000_000;
/// How long it is remembered that a sample has been given up, in nanoseconds; an answer that comes later than that
/// has no sample that we know of.
const LATE_NS: u64 = 10_000_000_000;
/// The most samples that wait, and the most that are remembered as given up: those of 80 CPUs at 1000 per second.
const MAX_WAITING: usize = 8192;
/// The most answers that wait for their sample. They come from the target, which may invent them.
const MAX_HELD: usize = 1024;

/// What a sample and its answer have in common, and when the sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Id of the thread, as the helper in the target knows it.
    pub tid: u32,
    /// The interrupted instruction.
    pub pc: u64,
    /// What the signal carried; 0 if nothing.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub time_ns: u64,
}

/// What became of answers and samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers that left with their sample.
    pub used: u64,
    /// Answers refused: their sample had been given up.
    pub late: u64,
    /// Answers refused: nothing had been asked of their thread.
    pub no_sample: u64,
    /// Answers refused: their thread was asked, but at another instruction, or with another cookie.
    pub mismatch: u64,
    /// Samples that left without an answer.
    pub unanswered: u64,
}

impl Counts {
    /// Answers that were refused, for whatever reason.
    pub const fn refused(&self) -> u64 {
        self.late + self.no_sample + self.mismatch
    }
}

/// Samples that wait for answers, and answers that wait for samples. `S` is what the caller wants back.
///
/// To tell a late answer from one that is early, hand in the samples that there are before the answers that there are.
#[derive(Debug)]
pub struct Join<S> {
    waiting: VecDeque<(Asked, S)>,
    held: VecDeque<Held>,
    given_up: VecDeque<Asked>,
    ready: VecDeque<(S, Option<Answer>)>,
    counts: Counts,
}

/// An answer whose sample has not come.
#[derive(Debug)]
struct Held {
    answer: Answer,
    since_ns: u64,
    /// A sample of its thread was met, and was not its own.
    met: bool,
}

impl<S> Default for Join<S> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            given_up: VecDeque::new(),
            ready: VecDeque::new(),
            counts: Counts::default(),
        }
    }
}

impl<S> Join<S> {
    /// Takes a sample whose thread was asked. One that was not has no answer to wait for and is none of this module's.
    pub fn sample(&mut self, asked: Asked, sample: S) {
        if let Some(at) = self.held.iter().position(|held| asked.fits(&held.answer)) {
            let answer = self.held.remove(at).map(|held| held.answer);
            self.counts.used += 1;
            self.ready.push_back((sample, answer));
            return;
        }
        for held in &mut self.held {
            held.met |= held.answer.tid == asked.tid;
        }
        self.waiting.push_back((asked, sample));
        if self.waiting.len() > MAX_WAITING
            && let Some((asked, sample)) = self.waiting.pop_front()
        {
            self.give_up(asked, sample);
        }
    }

    /// Takes an answer at `now_ns`, in the time of the samples.
    pub fn answer(&mut self, answer: Answer, now_ns: u64) {
        if let Some(at) = self.waiting.iter().position(|(asked, _)| asked.fits(&answer)) {
            if let Some((_, sample)) = self.waiting.remove(at) {
                self.counts.used += 1;
                self.ready.push_back((sample, Some(answer)));
            }
            return;
        }
        if let Some(at) = self.given_up.iter().position(|asked| asked.fits(&answer)) {
            self.given_up.remove(at);
            self.counts.late += 1;
            return;
        }
        let met = self.waiting.iter().any(|(asked, _)| asked.tid == answer.tid);
        self.held.push_back(Held {
            answer,
            since_ns: now_ns,
            met,
        });
        if self.held.len() > MAX_HELD
            && let Some(held) = self.held.pop_front()
        {
            self.refuse(&held);
        }
    }

    /// It is `now_ns`: gives up what has waited long enough.
    pub fn advance(&mut self, now_ns: u64) {
        for (asked, sample) in std::mem::take(&mut self.waiting) {
            if now_ns.saturating_sub(asked.time_ns) >= WAIT_NS {
                self.give_up(asked, sample);
            } else {
                self.waiting.push_back((asked, sample));
            }
        }
        for held in std::mem::take(&mut self.held) {
            if now_ns.saturating_sub(held.since_ns) >= WAIT_NS {
                self.refuse(&held);
            } else {
                self.held.push_back(held);
            }
        }
        self.given_up
            .retain(|asked| now_ns.saturating_sub(asked.time_ns) < LATE_NS);
    }

    /// No sample and no answer will come: gives up everything that waits.
    pub fn close(&mut self) {
        for (asked, sample) in std::mem::take(&mut self.waiting) {
            self.give_up(asked, sample);
        }
        for held in std::mem::take(&mut self.held) {
            self.refuse(&held);
        }
    }

    /// The next sample that waits no more. To be called until there is none, after each of the others.
    pub fn next_ready(&mut self) -> Option<(S, Option<Answer>)> {
        self.ready.pop_front()
    }

    /// What became of everything so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn give_up(&mut self, asked: Asked, sample: S) {
        self.counts.unanswered += 1;
        self.ready.push_back((sample, None));
        self.given_up.push_back(asked);
        if self.given_up.len() > MAX_WAITING {
            self.given_up.pop_front();
        }
    }

    fn refuse(&mut self, held: &Held) {
        let reason = if held.met {
            &mut self.counts.mismatch
        } else {
            &mut self.counts.no_sample
        };
        *reason += 1;
    }
}

impl Asked {
    fn fits(&self, answer: &Answer) -> bool {
        self.tid == answer.tid && self.pc == answer.pc && (self.cookie == 0 || self.cookie == answer.cookie)
    }
}

#[cfg(test)]
mod tests;
