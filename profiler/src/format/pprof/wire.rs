//! The outermost layer of a protobuf message, field by field and without copying, so that a hostile file cannot make
//! us build all its messages at once: an empty one takes 2 bytes in the file and dozens in memory.
//! (protobuf.dev, "Encoding": a key is `number << 3 | wire type`.)

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2: a string, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which `profile.proto` does not use.
    Fixed,
}

/// The fields of a message: number and content. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of the message that `bytes` are.
pub(super) fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { rest: bytes }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), &'static str> {
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let len = varint(&mut self.rest)?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            _ => return Err("a field has a wire type that protobuf does not have"),
        };
        match key >> 3 {
            0 => Err("a field has the number 0"),
            number => Ok((number, value)),
        }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
            .ok_or("it ends in the middle of a field")?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The numbers of a repeated field, packed (`Bytes`) or one at a time (`Varint`). Ends after the first error.
pub(super) fn varints(value: Value<'_>) -> impl Iterator<Item = Result<u64, &'static str>> {
    let (single, mut rest) = match value {
        Value::Varint(n) => (Some(n), &[][..]),
        Value::Bytes(bytes) => (None, bytes),
        Value::Fixed => (None, &[][..]),
    };
    let packed = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let n = varint(&mut rest);
        if n.is_err() {
            rest = &[];
        }
        Some(n)
    });
    single.map(Ok).into_iter().chain(packed)
}

fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut n = 0;
    for at in 0..10 {
        let (&byte, tail) = rest.split_first().ok_or("it ends in the middle of a number")?;
        *rest = tail;
        // The tenth byte has room for one bit; more are dropped, as protobuf demands.
        n |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err("a number is longer than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::{Value, fields, varints};

    #[test]
    fn fields_are_read_in_order() {
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let read: Vec<_> = fields(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            read,
            [
                (1, Value::Varint(150)),
                (2, Value::Bytes(b"hi")),
                (3, Value::Fixed),
                (4, Value::Fixed)
            ]
        );
    }

    #[test]
    fn repeated_numbers_are_packed_or_not() {
        let numbers = |value| varints(value).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(numbers(Value::Varint(7)), [7]);
        assert_eq!(numbers(Value::Bytes(&[3, 0x8e, 0x02])), [3, 270]);
        assert!(numbers(Value::Fixed).is_empty());
        assert!(varints(Value::Bytes(&[0x80])).any(|n| n.is_err()));
    }

    #[test]
    fn damage_is_an_error_and_the_end() {
        for bytes in [
            &[0x08][..],                                                      // no number
            &[0x12, 5, b'x'],                                                 // shorter than it says
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // length of 2^64 - 1
            &[0x0b],                                                          // a group
            &[0x0f],                                                          // no wire type
            &[0x00, 1],                                                       // field 0
            &[0xff; 11],                                                      // endless number
            &[0x0d, 1],                                                       // half a fixed32
        ] {
            let read: Vec<_> = fields(bytes).collect();
            assert!(read.len() == 1 && read[0].is_err(), "{bytes:x?}: {read:?}");
        }
    }
}
