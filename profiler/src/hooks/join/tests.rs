//! Pairs, and everything that is none.

use super::{Asked, Counts, Join, LATE_NS, MAX_HELD, MAX_WAITING, WAIT_NS};
use crate::hooks::Answer;

fn asked(tid: u32, pc: u64, time_ns: u64) -> Asked {
    Asked {
        tid,
        pc,
        cookie: 0,
        time_ns,
    }
}

fn answer(tid: u32, pc: u64) -> Answer {
    Answer {
        tid,
        pc,
        ..Default::default()
    }
}

/// Names of the samples that are ready, and whether they have an answer.
fn ready<S>(join: &mut Join<S>) -> Vec<(S, bool)> {
    std::iter::from_fn(|| join.next_ready())
        .map(|(sample, answer)| (sample, answer.is_some()))
        .collect()
}

#[test]
fn a_sample_waits_for_its_answer() {
    let mut join = Join::default();
    join.sample(asked(1, 0x10, 0), "a");
    join.advance(WAIT_NS - 1);
    assert_eq!(ready(&mut join), []);
    join.answer(answer(1, 0x10), WAIT_NS - 1);
    assert_eq!(ready(&mut join), [("a", true)]);
    join.close();
    assert_eq!(ready(&mut join), []);
    assert_eq!(
        join.counts(),
        Counts {
            used: 1,
            ..Default::default()
        }
    );
}

#[test]
fn an_answer_waits_for_its_sample() {
    let mut join = Join::default();
    join.answer(answer(1, 0x10), 5);
    join.sample(asked(1, 0x10, 4), "a");
    assert_eq!(ready(&mut join), [("a", true)]);
    assert_eq!((join.counts().used, join.counts().refused()), (1, 0));
}

#[test]
fn without_an_answer_the_sample_stands_alone_and_the_answer_is_late() {
    let mut join = Join::default();
    join.sample(asked(1, 0x10, 7), "a");
    join.advance(7 + WAIT_NS);
    assert_eq!(ready(&mut join), [("a", false)]);
    join.answer(answer(1, 0x10), 8 + WAIT_NS);
    assert_eq!(
        join.counts(),
        Counts {
            unanswered: 1,
            late: 1,
            ..Default::default()
        }
    );
    // One sample makes one answer late; and after a while nobody remembers.
    join.answer(answer(1, 0x10), 8 + WAIT_NS);
    join.advance(8 + 2 * WAIT_NS);
    assert_eq!((join.counts().late, join.counts().no_sample), (1, 1));
    join.sample(asked(1, 0x10, 9 + WAIT_NS), "b");
    join.advance(9 + 2 * WAIT_NS);
    join.advance(9 + 2 * WAIT_NS + LATE_NS);
    join.answer(answer(1, 0x10), 9 + 2 * WAIT_NS + LATE_NS);
    join.close();
    assert_eq!((join.counts().late, join.counts().no_sample), (1, 2));
}

#[test]
fn an_answer_that_nobody_asked_for_is_refused() {
    let mut join = Join::default();
    join.sample(asked(2, 0x10, 0), "of another thread");
    join.answer(answer(1, 0x10), 0);
    join.advance(WAIT_NS);
    assert_eq!(ready(&mut join), [("of another thread", false)]);
    assert_eq!((join.counts().no_sample, join.counts().refused()), (1, 1));
}

#[test]
fn an_answer_about_another_instruction_is_refused_in_either_order() {
    for sample_first in [true, false] {
        let mut join = Join::default();
        if sample_first {
            join.sample(asked(1, 0x10, 0), "a");
        }
        join.answer(answer(1, 0x20), 0);
        if !sample_first {
            join.sample(asked(1, 0x10, 0), "a");
        }
        join.close();
        assert_eq!(ready(&mut join), [("a", false)]);
        assert_eq!((join.counts().mismatch, join.counts().refused()), (1, 1));
    }
}

#[test]
fn where_there_is_a_cookie_it_decides() {
    let with = |cookie| Answer {
        cookie,
        ..answer(1, 0x10)
    };
    let mut join = Join::default();
    for cookie in [5, 6] {
        join.sample(
            Asked {
                cookie,
                ..asked(1, 0x10, 0)
            },
            cookie,
        );
    }
    // The answer to 5 got lost.
    join.answer(with(6), 0);
    join.answer(with(7), 0);
    join.close();
    assert_eq!(ready(&mut join), [(6, true), (5, false)]);
    assert_eq!((join.counts().used, join.counts().mismatch), (1, 1));
}

#[test]
fn without_a_cookie_answers_go_to_samples_in_order() {
    let mut join = Join::default();
    join.sample(asked(1, 0x10, 0), "a");
    join.sample(asked(1, 0x10, 1), "b");
    join.answer(answer(1, 0x10), 2);
    join.answer(answer(1, 0x10), 2);
    assert_eq!(ready(&mut join), [("a", true), ("b", true)]);
}

#[test]
fn samples_that_are_too_many_leave_without_an_answer() {
    let mut join = Join::default();
    for n in 0..MAX_WAITING + 2 {
        join.sample(asked(n as u32, 0x10, 0), n);
    }
    assert_eq!(ready(&mut join), [(0, false), (1, false)]);
    join.close();
    assert_eq!(ready(&mut join).len(), MAX_WAITING);
    assert_eq!(join.counts().unanswered, MAX_WAITING as u64 + 2);
}

#[test]
fn answers_that_are_invented_are_bounded() {
    let mut join = Join::<()>::default();
    for n in 0..3 * MAX_HELD {
        join.answer(answer(n as u32, 0x10), 0);
    }
    assert_eq!(join.held.len(), MAX_HELD);
    assert_eq!(join.counts().no_sample, 2 * MAX_HELD as u64);
    join.close();
    assert_eq!(join.counts().no_sample, 3 * MAX_HELD as u64);
}

#[test]
fn a_time_that_runs_backwards_gives_nothing_up() {
    let mut join = Join::default();
    join.sample(asked(1, 0x10, 10 * WAIT_NS), "a");
    join.advance(0);
    join.answer(answer(1, 0x10), 0);
    assert_eq!(ready(&mut join), [("a", true)]);
}

/// Small, even, and the same on every machine: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn in_any_interleaving_each_sample_comes_out_once_and_each_answer_is_counted_once() {
    for seed in 1..=300 {
        let random = &mut Random(seed);
        let has_cookie = random.below(2) == 1;
        let mut join = Join::default();
        let mut now = 0;
        let mut n_samples = 0_u64;
        let mut n_answers = 0;
        let mut out = Vec::new();
        // Samples and answers on their way, in no order.
        let mut samples = Vec::new();
        let mut answers = Vec::new();
        for step in 0..2_000 {
            let is_ending = step >= 1_500;
            match random.below(6) {
                0 if !is_ending => {
                    // A thread is asked. Few threads and instructions, so that they are mixed up if they can be.
                    let (tid, pc) = (random.below(4) as u32, random.below(3));
                    let cookie = if has_cookie { 1 + n_samples } else { 0 };
                    let asked = Asked {
                        cookie,
                        ..asked(tid, pc, now)
                    };
                    samples.push((asked, (n_samples, asked)));
                    n_samples += 1;
                    if random.below(5) != 0 {
                        answers.push(Answer {
                            cookie,
                            ..answer(tid, pc)
                        });
                    }
                }
                1 if !is_ending && random.below(4) == 0 => {
                    answers.push(answer(random.below(6) as u32, random.below(6)));
                }
                2 if !samples.is_empty() => {
                    let (asked, sample) = samples.swap_remove(random.below(samples.len() as u64) as usize);
                    join.sample(asked, sample);
                }
                3 if !answers.is_empty() => {
                    let at = random.below(answers.len() as u64) as usize;
                    join.answer(answers.swap_remove(at), now);
                    n_answers += 1;
                }
                4 => now += random.below(WAIT_NS / 4),
                _ => join.advance(now),
            }
            out.extend(std::iter::from_fn(|| join.next_ready()));
        }
        for (asked, sample) in samples {
            join.sample(asked, sample);
        }
        join.close();
        out.extend(std::iter::from_fn(|| join.next_ready()));

        let mut names: Vec<u64> = out.iter().map(|((name, _), _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names, (0..n_samples).collect::<Vec<_>>(), "seed {seed}");
        for ((_, asked), answer) in &out {
            if let Some(answer) = answer {
                assert_eq!(
                    (asked.tid, asked.pc, asked.cookie),
                    (answer.tid, answer.pc, answer.cookie),
                    "seed {seed}"
                );
            }
        }
        let counts = join.counts();
        let with_answer = out.iter().filter(|(_, answer)| answer.is_some()).count() as u64;
        assert_eq!(counts.used, with_answer, "seed {seed}");
        assert_eq!(counts.used + counts.unanswered, n_samples, "seed {seed}");
        assert_eq!(counts.used + counts.refused(), n_answers, "seed {seed}");
        assert!(
            counts.used > 0 && counts.unanswered > 0,
            "seed {seed}: {counts:?}"
        );
    }
}
