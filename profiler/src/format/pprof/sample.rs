//! One `Sample` message after the other, read into the same memory: a file has as many of them as there are distinct
//! stacks.

use super::proto::Label;
use super::tables::{damaged, message};
use super::wire::{self, Value};
use crate::format::Error;

/// The message that was read last.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Leaf first.
    pub(super) locations: Vec<u64>,
    pub(super) values: Vec<i64>,
    pub(super) labels: Vec<Label>,
}

impl Sample {
    /// Replaces what was read before.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.locations.clear();
        self.values.clear();
        self.labels.clear();
        for field in wire::fields(bytes) {
            let (number, value) = field.map_err(unreadable)?;
            match (number, value) {
                (1, Value::Varint(_) | Value::Bytes(_)) => {
                    for id in wire::varints(value) {
                        self.locations.push(id.map_err(unreadable)?);
                    }
                }
                (2, Value::Varint(_) | Value::Bytes(_)) => {
                    for n in wire::varints(value) {
                        self.values.push(n.map_err(unreadable)?.cast_signed());
                    }
                }
                (3, Value::Bytes(bytes)) => self.labels.push(message("label", bytes)?),
                (1..=3, _) => return Err(unreadable("a field has the wrong type")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn unreadable(why: &'static str) -> Error {
    damaged(format!("a sample cannot be read: {why}"))
}
