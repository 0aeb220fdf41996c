//! Saved profiles: what can be read can be written, and is then the same.

use profiler::format::{self, Format, pprof, unfold};
use profiler::profile::Profile;

pub fn pprof(data: &[u8]) {
    if let Ok(profile) = pprof::read(data) {
        write_all(&profile);
    }
}

pub fn folded(data: &[u8]) {
    if let Ok(profile) = unfold::read(data) {
        write_all(&profile);
    }
}

fn write_all(profile: &Profile) {
    for format in Format::ALL {
        let written = format::write(profile, format);
        if format == Format::Pprof
            && let Ok(bytes) = written
        {
            let again = pprof::read(&bytes).expect("what we wrote can be read");
            assert_eq!(again.summary.kept, profile.summary.kept);
        }
    }
    let _ = format::summary::text(profile);
    let _ = format::summary::json(profile);
}
