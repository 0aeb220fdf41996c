//! Debug files from servers that speak the protocol of debuginfod(8): one GET for each build id.
//!
//! Servers are asked only if the user names some in `DEBUGINFOD_URLS`. What they send is foreign: it is bounded in size
//! and time, and used only if it has the build id that was asked for. A server that did not answer in time is not asked
//! again.

use super::cache::{Cache, Kept};
use crate::symbolize::Object;
use bytes::Bytes;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Servers, in the order in which they are asked.
    pub urls: Vec<String>,
    /// The folder that files are kept in; `None` if there is no place for one.
    pub cache: Option<PathBuf>,
    /// How long a server may take to answer, and for each 100 KB of a file.
    pub timeout: Duration,
    /// How long one file may take in all.
    pub max_time: Duration,
    /// Largest file, in bytes.
    pub max_size: u64,
}

/// Who asks.
pub struct Client {
    settings: Settings,
    cache: Cache,
    agent: Agent,
    /// Servers that did not answer in time.
    silent: Vec<String>,
    stop: Arc<AtomicBool>,
}

/// A file that was had.
#[derive(Debug)]
pub struct Fetched {
    /// Its contents.
    pub bytes: Bytes,
    /// Where it is from: half a sentence.
    pub from: String,
}

/// What elfutils waits by default (debuginfod-client-config(7)).
const TIMEOUT: Duration = Duration::from_secs(90);
/// How long one file may take, if the user does not say.
const MAX_TIME: Duration = Duration::from_secs(600);
/// Largest file, if the user does not say: more than any distribution has.
const MAX_SIZE: u64 = 8 << 30;
/// What has to come within the timeout, in bytes (debuginfod-client-config(7)).
const PACE: u64 = 100 << 10;

impl Settings {
    /// What the environment says; `None` if no server is to be asked.
    pub fn from_env() -> Option<Self> {
        Self::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(value: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let urls = value("DEBUGINFOD_URLS")?;
        // Other words are about signatures, or about files of this machine.
        let urls: Vec<_> = urls
            .split_whitespace()
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        let cache = value("DEBUGINFOD_CACHE_PATH").map(PathBuf::from).or_else(|| {
            let home = || Some(PathBuf::from(value("HOME")?).join(".cache"));
            let caches = value("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
            Some(caches.join("debuginfod_client"))
        });
        let number = |name| value(name)?.parse::<u64>().ok().filter(|&n| n > 0);
        let seconds = |name| number(name).map(Duration::from_secs);
        (!urls.is_empty()).then(|| Self {
            urls,
            cache,
            timeout: seconds("DEBUGINFOD_TIMEOUT").unwrap_or(TIMEOUT),
            max_time: seconds("DEBUGINFOD_MAXTIME").unwrap_or(MAX_TIME),
            max_size: number("DEBUGINFOD_MAXSIZE").unwrap_or(MAX_SIZE),
        })
    }
}

impl Client {
    /// Asks nobody yet. Gives up what it is doing soon after `stop` is set.
    pub fn new(settings: Settings, stop: Arc<AtomicBool>) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .timeout_global(Some(settings.max_time))
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .http_status_as_error(false)
            .tls_config(tls)
            .user_agent(concat!("profiler/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            cache: Cache::new(settings.cache.clone()),
            settings,
            agent,
            silent: Vec::new(),
            stop,
        }
    }

    /// The debug file with a build id, in hexadecimal.
    ///
    /// # Errors
    /// Why there is none: half a sentence.
    pub fn fetch(&mut self, build_id: &str) -> Result<Fetched, String> {
        if build_id.is_empty() || !build_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("it has no build id".to_owned());
        }
        match self.cache.get(build_id) {
            Kept::File(bytes) => {
                if has_build_id(&bytes, build_id) {
                    let from = "taken from the cache of debuginfod".to_owned();
                    return Ok(Fetched { bytes, from });
                }
            }
            Kept::Absent => return Err("the servers did not have it a few minutes ago".to_owned()),
            Kept::Nothing => {}
        }
        let mut why = Vec::new();
        let mut is_nowhere = true;
        for url in self.settings.urls.clone() {
            if self.stop.load(Relaxed) {
                return Err("the recording was over".to_owned());
            }
            if self.silent.contains(&url) {
                why.push(format!("{url} is not asked any more"));
                is_nowhere = false;
                continue;
            }
            match self.fetch_from(&url, build_id) {
                Ok(bytes) => {
                    let size = bytes.len().div_ceil(1000);
                    let from = format!("fetched from {url} ({size} kB)");
                    return Ok(Fetched { bytes, from });
                }
                Err(Failure::NotThere) => why.push(format!("{url} does not have it")),
                Err(failure) => {
                    is_nowhere = false;
                    if matches!(failure, Failure::Silent) {
                        self.silent.push(url.clone());
                    }
                    why.push(format!("{url} {failure}"));
                }
            }
        }
        if is_nowhere {
            self.cache.remember_absence(build_id);
        }
        Err(why.join(", "))
    }

    fn fetch_from(&self, url: &str, build_id: &str) -> Result<Bytes, Failure> {
        let begun = Instant::now();
        let request = self.agent.get(format!("{url}/buildid/{build_id}/debuginfo"));
        let mut response = request.call().map_err(Failure::from)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(Failure::NotThere),
            status => return Err(Failure::Status(status)),
        }
        let too_large = Failure::TooLarge(self.settings.max_size);
        let size = response.body().content_length();
        if size.is_some_and(|size| size > self.settings.max_size) {
            return Err(too_large);
        }
        let mut file = self.cache.new_file(build_id).map_err(Failure::Storage)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        let mut pace = (begun, 0);
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::from(ureq::Error::from(error))),
            };
            total += n as u64;
            if total > self.settings.max_size {
                return Err(too_large);
            }
            if self.stop.load(Relaxed) {
                return Err(Failure::Stopped);
            }
            if begun.elapsed() > self.settings.max_time {
                return Err(Failure::Silent);
            }
            if pace.0.elapsed() > self.settings.timeout {
                if total - pace.1 < PACE {
                    return Err(Failure::Silent);
                }
                pace = (Instant::now(), total);
            }
            file.write_all(&buffer[..n]).map_err(Failure::Storage)?;
        }
        let bytes = file.contents().map_err(Failure::Storage)?;
        if !has_build_id(&bytes, build_id) {
            return Err(Failure::Wrong);
        }
        file.keep();
        Ok(bytes)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn has_build_id(bytes: &Bytes, build_id: &str) -> bool {
    Object::parse(bytes.clone(), None).is_ok_and(|object| object.gnu_build_id().as_deref() == Some(build_id))
}

/// Why a server's answer is of no use: the rest of a sentence that begins with the server.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("does not have it")]
    NotThere,
    #[error("did not answer in time")]
    Silent,
    #[error("was not waited for: the recording was over")]
    Stopped,
    #[error("answered with status {0}")]
    Status(u16),
    #[error("sent more than {0} bytes")]
    TooLarge(u64),
    #[error("sent another file than the one that was asked for")]
    Wrong,
    #[error("cannot be heard: {0}")]
    Transport(String),
    #[error("answered, but there is no place to put the file: {0}")]
    Storage(io::Error),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Silent,
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            error => Self::Transport(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
