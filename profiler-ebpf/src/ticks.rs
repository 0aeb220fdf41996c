//! Ticks of the sampling clock that never came.
//!
//! The clock is a timer with a fixed grid (kernel/events/core.c, `perf_swevent_hrtimer`: `hrtimer_forward_now`). A
//! tick that is served late does not move the grid; one that is served later than the next was due swallows it.

/// How many ticks were swallowed before the one that is served at `now`. `due` is when the last one was due, by the
/// earliest that any was served (0 before the first); both, and the `period`, in nanoseconds.
#[inline(always)]
pub fn lost(due: &mut u64, now: u64, period: u64) -> u64 {
    let late = now.wrapping_sub(*due);
    if *due == 0 || period == 0 || late < period {
        // The first; or all before were served later than this one, so the grid is earlier than it seemed.
        *due = now;
        return 0;
    }
    let ticks = late / period;
    *due = now - late % period;
    ticks - 1
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::lost;
    use std::vec::Vec;

    const PERIOD: u64 = 1000;

    /// Ticks lost before each of these times of service.
    fn all(served: &[u64]) -> Vec<u64> {
        let mut due = 0;
        served.iter().map(|&now| lost(&mut due, now, PERIOD)).collect()
    }

    #[test]
    fn late_ticks_are_not_lost() {
        // The third is served late by more than half a period, the next one in time.
        assert_eq!(all(&[10_010, 11_010, 12_700, 13_010, 14_010]), [0; 5]);
    }

    #[test]
    fn swallowed_ticks_are_counted() {
        assert_eq!(all(&[10_010, 11_010, 15_020, 16_010]), [0, 0, 3, 0]);
    }

    #[test]
    fn a_late_first_tick_does_not_shift_the_count() {
        let served: Vec<u64> = [10_900]
            .into_iter()
            .chain((11..1000).map(|n| n * 1000 + 5))
            .collect();
        assert_eq!(all(&served).iter().sum::<u64>(), 0);
        let with_a_gap: Vec<u64> = served
            .into_iter()
            .filter(|t| !(50_000..60_000).contains(t))
            .collect();
        assert_eq!(all(&with_a_gap).iter().sum::<u64>(), 10);
    }

    #[test]
    fn jitter_adds_up_to_nothing() {
        // Served between 0 and 0.9 periods late, in an irregular order.
        let served: Vec<u64> = (10..10_000).map(|n| n * 1000 + n * 7919 % 900).collect();
        assert!(all(&served).iter().sum::<u64>() <= 1);
    }
}
