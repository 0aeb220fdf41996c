//! The rows of Go code: from Go's own table of functions, and where a function changes stacks from its machine
//! code.
