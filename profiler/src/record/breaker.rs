//! When the hooks of a process are not called any more: one that misbehaves costs answers, and nothing else. Pure.

use std::collections::HashMap;

/// How long a hook may take, in nanoseconds: on a CPU, or asleep. Time that others had the CPU does not count.
const DEADLINE_NS: u64 = 5_000_000;
/// After how long it is taken for one that does not come back, likewise.
const STUCK_NS: u64 = 500_000_000;
/// How many samples in a row may have no answer.
const SILENCE: u64 = 50;

/// What a hook did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It wrote beyond its buffer.
    Overrun,
    /// It took longer than it may.
    Slow,
    /// It did not come back.
    Stuck,
    /// It left too many questions without an answer, or they did not reach it.
    Silent,
}

impl Misdeed {
    /// What happened in process `pid`, and how to go on, for people.
    pub fn sentence(self, pid: u32) -> String {
        let what = match self {
            Self::Overrun => "wrote beyond its buffer".to_owned(),
            Self::Slow => format!("took longer than {} ms", DEADLINE_NS / 1_000_000),
            Self::Stuck => format!("did not come back within {} ms", STUCK_NS / 1_000_000),
            Self::Silent => format!("left {SILENCE} questions in a row without an answer"),
        };
        format!(
            "the traceback hook of process {pid} {what}: it is not called any more, and stacks are as walked from here \
             on; --hooks=off never calls it"
        )
    }
}

/// What is seen of a thread that is in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which call of the hook it is.
    pub visit: u32,
    /// Time that the thread has spent on a CPU in its life, in nanoseconds, if that is known.
    pub on_cpu_ns: Option<u64>,
    /// It waits for something in the kernel.
    pub is_asleep: bool,
}

/// The record of one process.
#[derive(Debug, Default)]
pub struct Breaker {
    visits: HashMap<u32, Visit>,
    unanswered: u64,
    /// Answers that found no room, as far as their samples have not left.
    homeless: u64,
    /// How many there have been at all.
    all_homeless: u64,
    is_open: bool,
}

/// A call of the hook that has not come back, since it was first seen.
#[derive(Debug)]
struct Visit {
    on_cpu_ns: Option<u64>,
    asleep_since_ns: Option<u64>,
}

impl Visit {
    /// How long it has taken at least, in nanoseconds.
    fn took(&self, now_ns: u64, seen: &Seen) -> u64 {
        let on_cpu = seen.on_cpu_ns.zip(self.on_cpu_ns);
        let asleep = self.asleep_since_ns.map(|since| now_ns.saturating_sub(since));
        let on_cpu = on_cpu.map(|(now, then)| now.saturating_sub(then));
        asleep.max(on_cpu).unwrap_or(0)
    }
}

impl Breaker {
    /// Whether hooks are called no more.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// A hook did what it must not. True if that is news: hooks were called until now.
    pub fn open(&mut self) -> bool {
        !std::mem::replace(&mut self.is_open, true)
    }

    /// So many answers have found no room by now, since we did not fetch others in time. The hook is not to blame for that.
    pub fn without_room(&mut self, all: u64) {
        self.homeless += all.saturating_sub(self.all_homeless);
        self.all_homeless = all;
    }

    /// A sample left, with its answer or without. True if too many have left without.
    pub fn sample(&mut self, is_answered: bool) -> bool {
        if !is_answered && self.homeless > 0 {
            self.homeless -= 1;
            return false;
        }
        self.unanswered = if is_answered { 0 } else { self.unanswered + 1 };
        self.unanswered >= SILENCE
    }

    /// These calls of hooks have not come back at `now_ns`. What the worst of them is guilty of, and those that are stuck.
    pub fn inside(&mut self, now_ns: u64, seen: &[Seen]) -> (Option<Misdeed>, Vec<u32>) {
        self.visits
            .retain(|visit, _| seen.iter().any(|seen| seen.visit == *visit));
        let (mut misdeed, mut stuck) = (None, Vec::new());
        for seen in seen {
            let visit = self.visits.entry(seen.visit).or_insert(Visit {
                on_cpu_ns: seen.on_cpu_ns,
                asleep_since_ns: None,
            });
            visit.asleep_since_ns = seen.is_asleep.then(|| visit.asleep_since_ns.unwrap_or(now_ns));
            let took = visit.took(now_ns, seen);
            if took >= STUCK_NS {
                stuck.push(seen.visit);
                misdeed = Some(Misdeed::Stuck);
            } else if took >= DEADLINE_NS {
                misdeed = misdeed.or(Some(Misdeed::Slow));
            }
        }
        (misdeed, stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, Misdeed, SILENCE, Seen};

    const MS: u64 = 1_000_000;

    fn running(visit: u32, on_cpu_ms: u64) -> Seen {
        Seen {
            visit,
            on_cpu_ns: Some(on_cpu_ms * MS),
            is_asleep: false,
        }
    }

    #[test]
    fn time_on_a_cpu_counts_and_time_without_one_does_not() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.inside(0, &[running(1, 100)]), (None, vec![]));
        assert_eq!(breaker.inside(900 * MS, &[running(1, 104)]), (None, vec![]));
        let slow = (Some(Misdeed::Slow), vec![]);
        assert_eq!(breaker.inside(901 * MS, &[running(1, 105)]), slow);
        let stuck = (Some(Misdeed::Stuck), vec![1]);
        assert_eq!(breaker.inside(902 * MS, &[running(1, 600)]), stuck);
    }

    #[test]
    fn answers_without_room_are_no_silence() {
        let mut breaker = Breaker::default();
        breaker.without_room(30);
        breaker.without_room(40);
        let silent_after = |breaker: &mut Breaker| (0..).find(|_| breaker.sample(false));
        assert_eq!(silent_after(&mut breaker), Some(40 + SILENCE - 1));
        breaker.sample(true);
        breaker.without_room(40);
        assert_eq!(silent_after(&mut breaker), Some(SILENCE - 1));
    }

    #[test]
    fn another_call_begins_anew() {
        let mut breaker = Breaker::default();
        breaker.inside(0, &[running(1, 100)]);
        assert_eq!(breaker.inside(5 * MS, &[running(2, 105)]), (None, vec![]));
        assert_eq!(breaker.inside(6 * MS, &[running(1, 106)]), (None, vec![]));
    }

    #[test]
    fn whoever_sleeps_is_slow_and_then_stuck() {
        let asleep = Seen {
            is_asleep: true,
            ..running(7, 3)
        };
        let mut breaker = Breaker::default();
        assert_eq!(breaker.inside(0, &[asleep]), (None, vec![]));
        assert_eq!(breaker.inside(5 * MS, &[asleep]).0, Some(Misdeed::Slow));
        // Awake in between: it waits for several things, one after the other.
        assert_eq!(breaker.inside(400 * MS, &[running(7, 3)]), (None, vec![]));
        assert_eq!(breaker.inside(600 * MS, &[asleep]), (None, vec![]));
        assert_eq!(breaker.inside(1100 * MS, &[asleep]).1, [7]);
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let mut breaker = Breaker::default();
        assert!((0..49).all(|_| !breaker.sample(false)));
        assert!(!breaker.sample(true));
        assert!((0..49).all(|_| !breaker.sample(false)));
        assert!(breaker.sample(false));
        assert!(breaker.open());
        assert!(!breaker.open() && breaker.is_open());
    }
}
