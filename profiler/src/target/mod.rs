//! Looks at processes and the objects in them. Nothing here stops or changes anything.

pub mod go;
