//! The table by which a program without Go publishes hooks.

use super::objects::{Objects, Place};
use crate::explain::explain;
use crate::hooks::table::{Error, Table};
use crate::target::process::Process;

/// A table of traceback hooks.
#[derive(Clone, Debug)]
pub struct PublishedTable {
    /// What the process calls the object that it is in.
    pub object: String,
    /// What it names; or why it is none: a whole sentence without the final stop.
    pub hooks: Result<PublishedHooks, String>,
}

/// The hooks that a table names; `None` is null.
#[derive(Clone, Debug)]
pub struct PublishedHooks {
    /// The traceback function.
    pub traceback: Option<Place>,
    /// The symbolizer function.
    pub symbolizer: Option<Place>,
}

/// Finds the table of `process`: that of the executable, else that of the library that was loaded first, which are mapped
/// one below the other.
pub(super) fn find(process: &Process, objects: &Objects) -> Option<PublishedTable> {
    let executable = process.executable();
    let mut found = None;
    for loaded in &objects.0 {
        let Some((data, _)) = &loaded.object else {
            continue;
        };
        let hooks = match Table::find(data) {
            // The file has been understood so far.
            Ok(None) | Err(Error::Object(_)) => continue,
            Ok(Some(at)) => loaded
                .bias()
                .ok_or_else(|| "the mapping is of no segment of the file".to_owned())
                .and_then(|bias| {
                    let memory = process.memory(at.to_avma(bias).0, Table::SIZE);
                    let memory = memory
                        .map_err(|error| format!("the memory of the process cannot be read: {error}"))?;
                    Table::read(&memory).map_err(|error| explain(&error))
                }),
            Err(error) => Err(explain(&error)),
        };
        found = Some(PublishedTable {
            object: loaded.code.name.clone(),
            hooks: hooks.map(|table| PublishedHooks {
                traceback: table.traceback.map(|hook| objects.place(hook)),
                symbolizer: table.symbolizer.map(|hook| objects.place(hook)),
            }),
        });
        if executable.as_ref() == Some(&loaded.code.name) {
            break;
        }
    }
    found
}
