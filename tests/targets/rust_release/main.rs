//! Trait objects, generics, closures, panics that are caught, and threads, compiled with optimisation. See README.md for the
//! true chains.

use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

const STEPS: usize = 100_000;

fn burn(mut x: u64) -> u64 {
    for _ in 0..STEPS {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }
    x
}

trait Layer {
    fn go(&self, x: u64) -> u64;
}

struct Top(Box<dyn Layer>);
struct Bottom;

impl Layer for Top {
    #[inline(never)]
    fn go(&self, x: u64) -> u64 {
        self.0.go(burn(x)) ^ x
    }
}

impl Layer for Bottom {
    #[inline(never)]
    fn go(&self, x: u64) -> u64 {
        generic(x, |y| burn(y) ^ 1)
    }
}

#[inline(never)]
fn generic<F: Fn(u64) -> u64>(x: u64, f: F) -> u64 {
    recurse(f(x), 20) ^ x
}

#[inline(never)]
fn recurse(x: u64, below: u32) -> u64 {
    match below {
        0 => leaf(x),
        _ => black_box(recurse(x.wrapping_add(1), below - 1)) ^ x,
    }
}

#[inline(never)]
fn leaf(x: u64) -> u64 {
    let caught = std::panic::catch_unwind(|| thrower(x));
    caught.unwrap_or_else(|value| value.downcast_ref::<u64>().copied().unwrap_or(0))
}

#[inline(never)]
fn thrower(x: u64) -> u64 {
    let y = burn(x);
    if y != 0 {
        std::panic::resume_unwind(Box::new(y));
    }
    y
}

#[inline(never)]
fn work(over: &AtomicBool, expected: u64) -> u64 {
    let top = Top(Box::new(Top(Box::new(Bottom))));
    let mut rounds = 0;
    while !over.load(Relaxed) {
        assert_eq!(top.go(1), expected);
        rounds += 1;
    }
    rounds
}

fn main() {
    let expected = Top(Box::new(Top(Box::new(Bottom)))).go(1);
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || work(&over, expected))
        })
        .collect();
    println!("ready {}", std::process::id());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    over.store(true, Relaxed);
    let rounds: u64 = threads.into_iter().filter_map(|thread| thread.join().ok()).sum();
    println!("checksum {expected:016x} {rounds}");
}
