//! An object as a source of names, with its separate files.

use super::debuginfod::Fetched;
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
    servers: Servers,
}

/// What became of asking debuginfod.
#[derive(Debug, Default)]
enum Servers {
    /// They have not been asked.
    #[default]
    Unasked,
    /// They are being asked.
    Asked,
    /// The last word, and for which build ids there was one.
    Answered { build_ids: Vec<String>, word: String },
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
            servers: Servers::default(),
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

    /// The build id of the file that is missing and that servers may have, unless they have been asked for it.
    pub fn wanted(&self) -> Option<String> {
        let build_id = if self.object.wants_debug_file() {
            self.object.gnu_build_id()
        } else {
            self.object.alt_link().map(|link| link.build_id)
        };
        build_id.filter(|build_id| match &self.servers {
            Servers::Unasked | Servers::Asked => true,
            Servers::Answered { build_ids, .. } => !build_ids.contains(build_id),
        })
    }

    /// Servers are going to be asked for what is missing. False if nothing is, or if they have been asked before.
    pub fn ask(&mut self) -> bool {
        let asks = matches!(self.servers, Servers::Unasked) && self.wanted().is_some();
        if asks {
            self.servers = Servers::Asked;
        }
        asks
    }

    /// Takes what servers said about a build id: the file, or why there is none.
    pub fn answer(&mut self, build_id: &str, fetched: Result<Fetched, String>) {
        let word = match fetched {
            Ok(fetched) => match self.add(&fetched.bytes) {
                Ok(()) => format!("the file of build id {build_id} was {}", fetched.from),
                Err(error) => format!(
                    "the file of build id {build_id}, {}, is refused: {error}",
                    fetched.from
                ),
            },
            Err(why) => format!("there is no file of build id {build_id}: {why}"),
        };
        let build_id = build_id.to_owned();
        match &mut self.servers {
            Servers::Answered { build_ids, word: old } => {
                build_ids.push(build_id);
                *old = format!("{old}; {word}");
            }
            servers @ (Servers::Unasked | Servers::Asked) => {
                let build_ids = vec![build_id];
                *servers = Servers::Answered { build_ids, word };
            }
        }
    }

    /// Adds the file that was wanted.
    fn add(&mut self, bytes: &Bytes) -> Result<(), Error> {
        if !self.object.wants_debug_file() {
            return self.object.add_supplementary_file(bytes);
        }
        self.object.add_debug_file(bytes.clone())?;
        // Names in it are from where it would be installed.
        let id = self.object.gnu_build_id();
        let place = id.and_then(|id| find::path_of_build_id(&id)).unwrap_or_default();
        let refused = self.refused.get_mut();
        find::add_supplementary(&mut self.object, &place, &self.places, refused);
        Ok(())
    }

    /// What there is to say about separate files: those that were refused, and what servers answered.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.refused();
        match &self.servers {
            Servers::Unasked => {}
            Servers::Asked => {
                notes.push("debuginfod had not answered when the recording was over".to_owned())
            }
            Servers::Answered { word, .. } => notes.push(format!("debuginfod: {word}")),
        }
        notes
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
        let or_servers = match self.servers {
            Servers::Unasked => " or set DEBUGINFOD_URLS",
            Servers::Asked | Servers::Answered { .. } => "",
        };
        format!(
            "{reason}; install its debug package (-dbgsym, -debuginfo){or_servers}: it wants the debug file of build id \
             {id}"
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
