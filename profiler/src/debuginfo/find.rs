//! Where the separate files of an object are.

use super::roots::{Places, Root, folder_of, join};
use crate::symbolize::Object;
use bytes::Bytes;

/// The folder that distributions put debug files into.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// A file that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Where, as the one sees it who has it there.
    pub(super) path: String,
    pub(super) bytes: Bytes,
}

/// Adds the debug file of an object that has no DWARF itself, and the supplementary file, if they can be found. `path`
/// is what the process calls the object. Gives the debug file, and why files were refused: whole sentences without the
/// final stop.
pub(super) fn add_files(object: &mut Object, path: &str, places: &Places) -> (Option<Found>, Vec<String>) {
    let mut refused = Vec::new();
    let mut debug = None;
    if object.wants_debug_file() {
        for candidate in debug_files(object, path, places) {
            match object.add_debug_file(candidate.bytes.clone()) {
                Ok(()) => {
                    debug = Some(candidate);
                    break;
                }
                Err(error) => refused.push(format!("{} is refused: {error}", candidate.path)),
            }
        }
    }
    let of = debug.as_ref().map_or(path, |debug| debug.path.as_str());
    add_supplementary(object, of, places, &mut refused);
    (debug, refused)
}

/// Adds the supplementary file that the DWARF in the file `of` refers to.
pub(super) fn add_supplementary(
    object: &mut Object,
    of: &str,
    places: &Places,
    refused: &mut Vec<String>,
) -> bool {
    let Some(link) = object.alt_link() else {
        return false;
    };
    let by_name = join(folder_of(of), &link.path);
    let by_id = path_of_build_id(&link.build_id);
    let candidates = [
        (&places.own, Some(by_name)),
        (&places.own, by_id.clone()),
        (&places.host, by_id),
    ];
    for (root, path) in candidates {
        let (Some(root), Some(path)) = (root, path) else {
            continue;
        };
        let Ok(bytes) = root.read(&path) else { continue };
        match object.add_supplementary_file(&bytes) {
            Ok(()) => return true,
            Err(error) => refused.push(format!("{path} is refused: {error}")),
        }
    }
    false
}

/// The files that may be the debug file, the likeliest first; only those that exist are looked at.
fn debug_files(object: &Object, path: &str, places: &Places) -> impl Iterator<Item = Found> + use<> {
    let places = places.clone();
    let by_id = object.gnu_build_id().and_then(|id| path_of_build_id(&id));
    let linked = object.debug_link().map(|(name, _)| {
        let folder = folder_of(path);
        [
            format!("{folder}/{name}"),
            format!("{folder}/.debug/{name}"),
            format!("{DEBUG_FOLDER}{folder}/{name}"),
        ]
    });
    // A name without a folder is no path of a file.
    let linked = linked.filter(|_| path.starts_with('/')).into_iter().flatten();
    let own = by_id.clone().into_iter().chain(linked);
    let own = own.map(move |path| (places.own.clone(), path));
    let host = by_id.into_iter().map(move |path| (places.host.clone(), path));
    own.chain(host).filter_map(|(root, path)| open(root?, path))
}

fn open(root: Root, path: String) -> Option<Found> {
    let bytes = root.read(&path).ok()?;
    Some(Found { path, bytes })
}

/// Where the file with a build id has its debug file. `None` if the id is none.
pub(super) fn path_of_build_id(id: &str) -> Option<String> {
    let (first, rest) = id.split_at_checked(2)?;
    let is_hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && !rest.is_empty()).then(|| format!("{DEBUG_FOLDER}/.build-id/{first}/{rest}.debug"))
}
