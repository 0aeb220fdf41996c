//! An object as a source of names, with its separate files.

use super::find::{self, Found};
use super::roots::{Places, folder_of, join};
use crate::addr::Svma;
use crate::symbolize::{Error, Name, Object, Reason, SplitUnit};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashSet;

/// An object and the separate files that were found for it.
#[derive(Debug)]
pub struct Symbols {
    object: Object,
    /// What the process calls the object.
    path: String,
    places: Places,
    debug: Option<Found>,
    looked_for: RefCell<LookedFor>,
    refused: RefCell<Vec<String>>,
}

/// What there is no use looking for again.
#[derive(Debug, Default)]
struct LookedFor {
    package: bool,
    split_units: HashSet<u64>,
}

/// Refused files that are mentioned.
const MAX_REFUSED: usize = 16;

impl Symbols {
    /// Reads the object file that processes with these places have at `path`, and finds its debug file.
    ///
    /// # Errors
    /// The bytes are not an ELF file for this machine, or damaged beyond use.
    pub fn open(file: Bytes, path: &str, places: Places) -> Result<Self, Error> {
        let mut object = Object::parse(file, None)?;
        let (debug, refused) = find::add_files(&mut object, path, &places);
        Ok(Self {
            object,
            path: path.to_owned(),
            places,
            debug,
            looked_for: RefCell::default(),
            refused: RefCell::new(refused),
        })
    }

    /// The object itself.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The contents of its debug file, if there is one.
    pub fn debug_file(&self) -> Option<&Bytes> {
        self.debug.as_ref().map(|debug| &debug.bytes)
    }

    /// Where its debug file is, if there is one.
    pub fn debug_path(&self) -> Option<&str> {
        self.debug.as_ref().map(|debug| debug.path.as_str())
    }

    /// The files that were found and do not belong to the object: whole sentences without the final stop.
    pub fn refused(&self) -> Vec<String> {
        self.refused.borrow().clone()
    }

    /// The functions at an address, as [`Object::lookup`] gives them. Files of split units are opened as they are needed.
    ///
    /// # Errors
    /// Why there is no name.
    pub fn lookup(&self, address: Svma) -> Result<Vec<Name>, Reason> {
        let units = self.object.split_units(address);
        if !units.is_empty() {
            self.add_package();
            for unit in self.object.split_units(address) {
                self.add_split_unit(&unit);
            }
        }
        self.object.lookup(address)
    }

    /// Why an address has no name, and what would give it one.
    pub fn explain(&self, reason: &Reason) -> String {
        let by_debug_file = matches!(reason, Reason::NoSymbols | Reason::BetweenSymbols);
        if !by_debug_file || !self.object.wants_debug_file() {
            return reason.explain();
        }
        let Some(id) = self.object.gnu_build_id() else {
            return reason.explain();
        };
        format!(
            "{reason}; install its debug package (-dbgsym, -debuginfo) or set DEBUGINFOD_URLS: it wants the debug file \
             of build id {id}"
        )
    }

    /// Adds the package that is beside the object, or beside its debug file.
    fn add_package(&self) {
        if std::mem::replace(&mut self.looked_for.borrow_mut().package, true) {
            return;
        }
        let Some(root) = &self.places.own else { return };
        for path in [Some(self.path.as_str()), self.debug_path()]
            .into_iter()
            .flatten()
        {
            let package = format!("{path}.dwp");
            let Ok(bytes) = root.read(&package) else {
                continue;
            };
            if let Err(error) = self.object.add_package(&bytes) {
                self.refuse(&package, &error);
            }
            return;
        }
    }

    fn add_split_unit(&self, unit: &SplitUnit) {
        if !self.looked_for.borrow_mut().split_units.insert(unit.id) {
            return;
        }
        let path = join(unit.folder.as_deref().unwrap_or_default(), &unit.path);
        // Or beside the object: it may have been built on another machine.
        let name = unit.path.rsplit('/').next().unwrap_or_default();
        let beside = join(folder_of(&self.path), name);
        let Some(root) = &self.places.own else { return };
        for path in [path, beside] {
            let Ok(bytes) = root.read(&path) else { continue };
            match self.object.add_split_unit(unit, &bytes) {
                Ok(()) => return,
                Err(error) => self.refuse(&path, &error),
            }
        }
    }

    fn refuse(&self, path: &str, error: &Error) {
        let mut refused = self.refused.borrow_mut();
        if refused.len() < MAX_REFUSED {
            refused.push(format!("{path} is refused: {error}"));
        }
    }
}
