//! A server of our own, which keeps to the protocol or does not.

use super::{Client, Settings};
use crate::debuginfo::tests::Installed;
use bytes::Bytes;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What a server does with a request.
type Behaviour = Box<dyn Fn(&str, &mut TcpStream) + Send>;

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                // The head ends with an empty line.
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                counter.fetch_add(1, SeqCst);
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                behaviour(&path, &mut stream);
            }
        });
        Self { url, requests }
    }

    /// One that has one file.
    fn with(path: String, file: Bytes) -> Self {
        Self::start(Box::new(move |asked, stream| {
            // Who has been answered may be gone.
            let _ = if asked == path {
                answer(stream, "200 OK", &file)
            } else {
                answer(stream, "404 Not Found", b"")
            };
        }))
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

fn settings(urls: &[&Server], cache: &Path) -> Settings {
    Settings {
        urls: urls.iter().map(|server| server.url.clone()).collect(),
        cache: Some(cache.to_owned()),
        timeout: Duration::from_secs(60),
        max_time: Duration::from_secs(60),
        max_size: 1 << 20,
    }
}

/// What nobody waits for long.
const SHORT: Duration = Duration::from_millis(300);

fn client(settings: Settings) -> Client {
    Client::new(settings, Arc::default())
}

fn path_of(id: &str) -> String {
    format!("/buildid/{id}/debuginfo")
}

fn debug_file(program: &Installed) -> (String, Bytes) {
    let bytes = std::fs::read(&program.debug).unwrap();
    (program.build_id.clone().unwrap(), Bytes::from(bytes))
}

#[test]
fn a_file_is_fetched_once_and_then_taken_from_the_cache_that_all_clients_share() {
    let program = Installed::new("");
    let (id, file) = debug_file(&program);
    let cache = tempfile::tempdir().unwrap();
    let (empty, server) = (
        Server::with(String::new(), Bytes::new()),
        Server::with(path_of(&id), file.clone()),
    );
    let settings = settings(&[&empty, &server], cache.path());
    let fetched = client(settings.clone()).fetch(&id).unwrap();
    assert!(fetched.bytes == file);
    assert!(
        fetched.from.starts_with(&format!("fetched from {}", server.url)),
        "{}",
        fetched.from
    );
    assert_eq!((empty.requests(), server.requests()), (1, 1));

    let kept = cache.path().join(&id).join("debuginfo");
    assert!(std::fs::read(&kept).unwrap() == file[..]);
    let again = client(settings.clone()).fetch(&id).unwrap();
    assert!(
        again.bytes == file && again.from.contains("cache"),
        "{}",
        again.from
    );
    assert_eq!(server.requests(), 1);

    // What is in the cache is foreign, too.
    std::fs::remove_file(&kept).unwrap();
    std::fs::write(&kept, "something else").unwrap();
    assert!(client(settings).fetch(&id).unwrap().bytes == file);
    assert_eq!(server.requests(), 2);
    assert!(std::fs::read(&kept).unwrap() == file[..]);
}

#[test]
fn what_no_server_has_is_not_asked_for_again_for_a_while() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::with(String::new(), Bytes::new());
    let mut client = client(settings(&[&server], cache.path()));
    let why = client.fetch("abcdef").unwrap_err();
    assert_eq!(why, format!("{} does not have it", server.url));
    let kept = cache.path().join("abcdef/debuginfo");
    assert_eq!(std::fs::metadata(&kept).unwrap().len(), 0);
    let why = client.fetch("abcdef").unwrap_err();
    assert!(why.contains("a few minutes ago"), "{why}");
    assert_eq!(server.requests(), 1);

    let file = std::fs::File::options().write(true).open(&kept).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(long_ago).unwrap();
    client.fetch("abcdef").unwrap_err();
    assert_eq!(server.requests(), 2);
}

#[test]
fn an_id_that_is_none_is_not_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::with(String::new(), Bytes::new());
    let mut client = client(settings(&[&server], cache.path()));
    for id in ["", "../../x", "ab/cd", "abc?"] {
        client.fetch(id).unwrap_err();
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn bad_answers_are_given_up_and_nothing_of_them_is_kept() {
    let (program, other) = (Installed::new(""), Installed::new("-O1 -DOTHER"));
    let (id, file) = debug_file(&program);
    let half = file.slice(..file.len() / 2);
    let wrong = debug_file(&other).1;
    let whole = file.len();
    let (let_go, hold) = mpsc::channel::<()>();
    let behaviours: Vec<(Behaviour, &str)> = vec![
        (
            // Until the test is over.
            Box::new(move |_, _| hold.recv().unwrap_or_default()),
            "did not answer in time",
        ),
        (
            Box::new(|_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[0; 4096]).is_ok() {}
            }),
            "sent more than 1048576 bytes",
        ),
        (
            Box::new(|_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");
            }),
            "sent more than 1048576 bytes",
        ),
        (
            Box::new(move |_, stream| drop(answer(stream, "200 OK", &wrong))),
            "sent another file",
        ),
        (
            Box::new(|_, stream| drop(answer(stream, "200 OK", b"<html>not found</html>"))),
            "sent another file",
        ),
        (
            Box::new(move |_, stream| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&half);
            }),
            "cannot be heard",
        ),
        (
            Box::new(|_, stream| drop(answer(stream, "500 Oops", b""))),
            "answered with status 500",
        ),
        (
            Box::new(|_, stream| drop(stream.write_all(b"no HTTP at all\r\n\r\n"))),
            "cannot be heard",
        ),
    ];
    for (behaviour, expected) in behaviours {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(behaviour);
        let mut settings = settings(&[&server], cache.path());
        if expected.contains("in time") {
            settings.timeout = SHORT;
        }
        let why = client(settings).fetch(&id).unwrap_err();
        assert!(why.contains(expected), "{expected}: {why}");
        assert!(!cache.path().join(&id).join("debuginfo").exists(), "{expected}");
    }
    drop(let_go);
}

#[test]
fn a_server_that_does_not_answer_is_asked_once() {
    let cache = tempfile::tempdir().unwrap();
    let (let_go, hold) = mpsc::channel::<()>();
    let server = Server::start(Box::new(move |_, _| hold.recv().unwrap_or_default()));
    let mut client = client(Settings {
        timeout: SHORT,
        ..settings(&[&server], cache.path())
    });
    for expected in ["did not answer in time", "is not asked any more"] {
        let why = client.fetch("abcdef").unwrap_err();
        assert!(why.ends_with(expected), "{why}");
    }
    assert_eq!(server.requests(), 1);
    drop(let_go);
}

#[test]
fn nothing_is_asked_when_nobody_waits_any_more() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::with(String::new(), Bytes::new());
    let stop = Arc::new(AtomicBool::new(true));
    let mut client = Client::new(settings(&[&server], cache.path()), stop);
    assert_eq!(client.fetch("abcdef").unwrap_err(), "the recording was over");
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let program = Installed::new("");
    let (id, file) = debug_file(&program);
    let server = Server::with(path_of(&id), file.clone());
    let no_folder = Path::new("/proc/no/such/folder");
    let fetched = client(settings(&[&server], no_folder)).fetch(&id).unwrap();
    assert!(fetched.bytes == file);
}

#[test]
fn the_environment_says_whom_to_ask_and_where_to_keep_it() {
    let from = |variables: &[(&str, &str)]| {
        Settings::from(|name| {
            let found = variables.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(from(&[("HOME", "/h")]), None);
    assert_eq!(from(&[("DEBUGINFOD_URLS", "ima:enforcing file:///x")]), None);
    let settings = from(&[
        ("DEBUGINFOD_URLS", "https://a/ http://b:8002"),
        ("HOME", "/h"),
        ("DEBUGINFOD_TIMEOUT", "7"),
        ("DEBUGINFOD_MAXSIZE", "none"),
    ])
    .unwrap();
    assert_eq!(settings.urls, ["https://a", "http://b:8002"]);
    assert_eq!(
        settings.cache.as_deref(),
        Some(Path::new("/h/.cache/debuginfod_client"))
    );
    assert_eq!(settings.timeout, Duration::from_secs(7));
    assert_eq!(settings.max_size, super::MAX_SIZE);
    let urls = ("DEBUGINFOD_URLS", "http://b");
    let cache = |variables: &[_]| from(&[&[urls], variables].concat()).unwrap().cache.unwrap();
    assert_eq!(
        cache(&[("XDG_CACHE_HOME", "/c")]),
        Path::new("/c/debuginfod_client")
    );
    assert_eq!(
        cache(&[("XDG_CACHE_HOME", "/c"), ("DEBUGINFOD_CACHE_PATH", "/d")]),
        Path::new("/d")
    );
    assert_eq!(from(&[urls]).unwrap().cache, None);
}
