//! Everything in a file but its samples, and the limits that make it safe to read.

use super::ids::ById;
use super::proto::{Function, Line, Location, Mapping, ValueType};
use super::wire::{self, Value};
use crate::format::{Error, escape};
use crate::profile::Measure;
use flate2::read::MultiGzDecoder;
use prost::Message;
use std::borrow::Cow;
use std::io::Read;

/// How much memory a file may cost, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The file when it is unpacked.
    pub(super) unpacked: usize,
    /// Everything that is made of it.
    pub(super) tables: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked: 1 << 30,
            tables: 2 << 30,
        }
    }
}

/// The largest single message or string: a sample of 100,000 frames fits.
const MAX_FIELD: usize = 1 << 20;

/// What one stack node, one sample or one entry of an index costs in the tables of [`Builder`] and here: the
/// entry, its key in a hash table, and the table's free room.
pub(super) const ENTRY: usize = 64;

/// The message in the file, without the gzip around it.
pub(super) fn unpack(bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, Error> {
    let too_large = Error::TooLarge {
        what: "the unpacked file",
        limit,
    };
    let unpacked = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        // Several members in a row are one stream, as for gunzip and Go.
        MultiGzDecoder::new(bytes)
            .take(limit as u64 + 1)
            .read_to_end(&mut unpacked)
            .map_err(Error::Gzip)?;
        Cow::Owned(unpacked)
    } else {
        Cow::Borrowed(bytes)
    };
    if unpacked.len() > limit {
        return Err(too_large);
    }
    Ok(unpacked)
}

/// The memory that may still be taken.
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    /// Counts `bytes` that are about to be, or have just been, taken.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or(Error::TooLarge {
            what: "its stacks and names",
            limit: self.limit,
        })?;
        Ok(())
    }
}

/// The error for a file that contradicts itself.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::Damaged(what.into())
}

/// Everything in a file but its samples.
#[derive(Default)]
pub(super) struct Tables<'a> {
    strings: Vec<&'a [u8]>,
    pub(super) sample_types: Vec<ValueType>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) locations: ById<Location>,
    pub(super) functions: ById<Function>,
    pub(super) comments: Vec<i64>,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    period_type: ValueType,
    period: i64,
    pub(super) has_samples: bool,
}

impl<'a> Tables<'a> {
    /// Reads the message that `bytes` are.
    pub(super) fn read(bytes: &'a [u8], budget: &mut Budget) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::NotPprof("it is empty".to_owned()));
        }
        let mut tables = Self::default();
        for (at, field) in wire::fields(bytes).enumerate() {
            field
                .map_err(damaged)
                .and_then(|(number, value)| tables.field(number, value, budget))
                .map_err(|error| match error {
                    // Nothing that makes sense yet: it never was one.
                    Error::Damaged(_) if at == 0 => {
                        Error::NotPprof("it is neither gzip nor protobuf".to_owned())
                    }
                    error => error,
                })?;
        }
        // profile.proto: string_table[0] must be "", for it is what a field that is not set refers to.
        if !tables.strings.is_empty() && tables.strings[0] != b"" {
            return Err(damaged("its first string is not empty"));
        }
        if tables.sample_types.is_empty() {
            return Err(Error::NotPprof(
                "it does not say what it measures (no sample_type)".to_owned(),
            ));
        }
        Ok(tables)
    }

    fn field(&mut self, number: u64, value: Value<'a>, budget: &mut Budget) -> Result<(), Error> {
        match (number, value) {
            (1, Value::Bytes(bytes)) => {
                budget.take(ENTRY)?;
                self.sample_types.push(message("sample type", bytes)?);
            }
            (2, Value::Bytes(_)) => self.has_samples = true,
            (3, Value::Bytes(bytes)) => {
                budget.take(2 * size_of::<Mapping>())?;
                self.mappings.push(message("mapping", bytes)?);
            }
            (4, Value::Bytes(bytes)) => {
                let location: Location = message("location", bytes)?;
                budget
                    .take(2 * size_of::<Location>() + ENTRY + location.line.capacity() * size_of::<Line>())?;
                let id = location.id;
                if !self.locations.insert(id, location) {
                    return Err(damaged(format!("there are two locations {id}")));
                }
            }
            (5, Value::Bytes(bytes)) => {
                budget.take(2 * size_of::<Function>() + ENTRY)?;
                let function: Function = message("function", bytes)?;
                if !self.functions.insert(function.id, function) {
                    return Err(damaged(format!("there are two functions {}", function.id)));
                }
            }
            (6, Value::Bytes(bytes)) => {
                if bytes.len() > MAX_FIELD {
                    return Err(damaged(format!("a string of {} bytes", bytes.len())));
                }
                budget.take(2 * size_of::<&[u8]>())?;
                self.strings.push(bytes);
            }
            (9, Value::Varint(n)) => self.time_nanos = n.cast_signed(),
            (10, Value::Varint(n)) => self.duration_nanos = n.cast_signed(),
            (11, Value::Bytes(bytes)) => self.period_type = message("period type", bytes)?,
            (12, Value::Varint(n)) => self.period = n.cast_signed(),
            (13, value @ (Value::Varint(_) | Value::Bytes(_))) => {
                for index in wire::varints(value) {
                    budget.take(2 * size_of::<i64>())?;
                    self.comments.push(index.map_err(damaged)?.cast_signed());
                }
            }
            (1..=6 | 9..=13, _) => return Err(damaged(format!("field {number} has the wrong type"))),
            _ => {}
        }
        Ok(())
    }

    /// The string with this index. Invalid UTF-8 is replaced, which takes as long as the string.
    pub(super) fn string(&self, index: i64) -> Result<Cow<'a, str>, Error> {
        self.bytes(index).map(String::from_utf8_lossy)
    }

    /// The bytes of the string with this index, to compare: the shortest way to say no.
    pub(super) fn bytes(&self, index: i64) -> Result<&'a [u8], Error> {
        usize::try_from(index)
            .ok()
            .and_then(|at| self.strings.get(at))
            .copied()
            .ok_or_else(|| damaged(format!("there is no string {index}")))
    }

    fn is(&self, value_type: &ValueType, r#type: &str, unit: &str) -> Result<bool, Error> {
        Ok(self.bytes(value_type.r#type)? == r#type.as_bytes()
            && self.bytes(value_type.unit)? == unit.as_bytes())
    }

    fn sample_type(&self, r#type: &str, unit: &str) -> Result<Option<usize>, Error> {
        for (at, value_type) in self.sample_types.iter().enumerate() {
            if self.is(value_type, r#type, unit)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// What this is a profile of, and which value of a sample says how much: of CPU time the number of samples.
    pub(super) fn measured(&self) -> Result<(Measure, usize), Error> {
        let count = self.sample_type("samples", "count")?;
        let cpu = self.sample_type("cpu", "nanoseconds")?;
        if let (Some(count), Some(_)) = (count, cpu) {
            return Ok((Measure::Cpu, count));
        }
        if let Some(off_cpu) = self.sample_type("off-cpu", "nanoseconds")? {
            return Ok((Measure::OffCpu, off_cpu));
        }
        // For a message, not for the record: so many, and so much of each.
        const MOST: usize = 8;
        const LONGEST: usize = 60;
        let mut found = Vec::new();
        for value_type in self.sample_types.iter().take(MOST) {
            let (r#type, unit) = (self.string(value_type.r#type)?, self.string(value_type.unit)?);
            let clipped: String = r#type
                .chars()
                .chain(['/'])
                .chain(unit.chars())
                .take(LONGEST)
                .collect();
            found.push(escape(&clipped).into_owned());
        }
        Err(Error::NotCpu {
            found: found.join(", "),
        })
    }

    /// Samples per second and CPU; 0 if the file does not say.
    pub(super) fn frequency_hz(&self) -> Result<u64, Error> {
        let known = self.period > 0 && self.is(&self.period_type, "cpu", "nanoseconds")?;
        if !known {
            return Ok(0);
        }
        let period = self.period.unsigned_abs();
        Ok((1_000_000_000_u64.saturating_add(period / 2) / period).max(1))
    }
}

/// The bytes of a message, if they are not more than any message has.
pub(super) fn bounded<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    if bytes.len() > MAX_FIELD {
        return Err(damaged(format!("a {what} of {} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Reads a message inside of the file's.
pub(super) fn message<M: Message + Default>(what: &str, bytes: &[u8]) -> Result<M, Error> {
    M::decode(bounded(what, bytes)?).map_err(|error| damaged(format!("a {what} cannot be read: {error}")))
}
