
#![allow(named_asm_labels)]
use std::arch::asm;
use std::hint::black_box;

mod shop {
    use super::*;

    pub trait Price {
        fn price(&self) -> u64;
    }

    pub struct Basket<T>(pub Vec<T>);

    impl<T: Copy + Into<u64>> Price for Basket<T> {
        #[inline(never)]
        fn price(&self) -> u64 {
            unsafe { asm!("in_price: nop") } // price is here
            self.0.iter().map(|&item| item.into()).sum()
        }
    }

    #[inline(always)]
    pub fn discount(price: u64) -> u64 {
        unsafe { asm!("in_discount: nop") } // discount is here
        price / 2
    }
}

#[inline(never)]
fn apply<F: Fn(u64) -> u64>(f: F, x: u64) -> u64 {
    f(x) // apply calls
}

fn main() {
    use shop::Price;
    let basket = shop::Basket(black_box(vec![1_u32, 2, 3]));
    let price = basket.price();
    let factor = black_box(7);
    let sum = apply(
        |x| {
            unsafe { asm!("in_closure: nop") } // closure is here
            x * factor
        },
        price,
    );
    let half = shop::discount(black_box(sum)); // main calls discount
    black_box(half);
}
