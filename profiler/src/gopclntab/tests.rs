//! The table of real programs against what Go and DWARF say of them, and damaged tables.

mod damage;
mod truth;
