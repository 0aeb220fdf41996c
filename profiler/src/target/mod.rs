//! Looks at processes and at the objects in them. Nothing here stops or changes anything.

pub mod go;
