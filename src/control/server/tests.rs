use std::{
    io::{BufRead, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream as StdStream},
    thread,
};

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::{
    control::{Client, ClientError},
    testing::log,
};

/// Tells two lines of progress, and then what it was given.
struct Echo;

#[async_trait(?Send)]
impl Command for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal> {
        told.tell(&json!({"at": 1})).await;
        told.tell(&json!({"at": 2})).await;
        match parameters {
            Value::Null => Err(Refusal::bad_request("say something")),
            parameters => Ok(parameters),
        }
    }
}

/// Never ends by itself, and tells when it was ended.
struct Endless(std::sync::Mutex<Option<oneshot::Sender<()>>>);

#[async_trait(?Send)]
impl Command for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    async fn run(&self, _: Value, told: &Told) -> Result<Value, Refusal> {
        struct Guard(Option<oneshot::Sender<()>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.take().unwrap().send(()).unwrap();
            }
        }
        let _guard = Guard(self.0.lock().unwrap().take());
        told.tell(&json!({})).await;
        std::future::pending().await
    }
}

fn start(commands: Vec<Box<dyn Command>>) -> (TempDir, Addr<ControlServer>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = Socket::bind(directory.path()).unwrap();
    let server = ControlServer::new(socket, commands, Arc::default(), &log()).start();
    (directory, server)
}

/// Runs what blocks beside the server.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || sender.send(work()).ok());
    receiver.await.unwrap()
}

fn line_for(path: &Path, sent: &[u8]) -> Value {
    let mut stream = StdStream::connect(socket_path(path)).unwrap();
    stream.write_all(sent).unwrap();
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[actix_rt::test]
async fn a_request_is_answered_line_by_line_until_it_is_done() {
    let (directory, _server) = start(vec![Box::new(Echo)]);
    let path = directory.path().to_owned();

    let (told, result) = beside(move || {
        let mut told = Vec::new();
        let client = Client::connect(&path).unwrap().unwrap();
        let answers = client.request("echo", json!({"x": [1]})).unwrap();
        let result = answers.finish(|progress| told.push(progress));
        (told, result.unwrap())
    })
    .await;

    assert_eq!(told, [json!({"at": 1}), json!({"at": 2})]);
    assert_eq!(result, json!({"x": [1]}));
}

#[actix_rt::test]
async fn what_is_not_understood_is_refused_with_what_is() {
    let (directory, _server) = start(vec![Box::new(Echo)]);
    let path = directory.path().to_owned();
    let mut long = vec![b' '; MAX_REQUEST_BYTES + 2];
    long.push(b'\n');

    let answers = beside(move || {
        [
            &b"{\"version\":1,\"request\":\"dance\"}\n"[..],
            b"{\"version\":7,\"request\":\"echo\"}\n",
            b"what?\n",
            b"{\"version\":1,\"request\":\"echo\"}\n",
            &long,
        ]
        .map(|sent| {
            let mut stream = StdStream::connect(socket_path(&path)).unwrap();
            // The daemon may have refused before it has read all.
            stream.write_all(sent).ok();
            let lines = io::BufReader::new(stream).lines().map_while(Result::ok);
            lines.last().unwrap_or_default()
        })
    })
    .await;

    let codes = ["unknown_request", "version", "bad_request", "bad_request", "too_big"];
    for (answer, code) in answers.iter().zip(codes) {
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    assert!(answers[0].contains("ping, echo"), "{}", answers[0]);
}

#[actix_rt::test]
async fn who_hangs_up_ends_what_he_asked_for() {
    let (sender, ended) = oneshot::channel();
    let endless = Endless(std::sync::Mutex::new(Some(sender)));
    let (directory, _server) = start(vec![Box::new(endless)]);
    let path = directory.path().to_owned();

    beside(move || {
        let client = Client::connect(&path).unwrap().unwrap();
        let mut answers = client.request("endless", Value::Null).unwrap();
        assert!(matches!(answers.next_line(), Ok(Some(Answer::Progress { .. }))));
    })
    .await;

    ended.await.unwrap();
}

#[actix_rt::test]
async fn only_so_many_clients_are_served_and_their_places_come_back() {
    let (directory, _server) = start(Vec::new());
    let path = directory.path().to_owned();

    beside(move || {
        let ping = b"{\"version\":1,\"request\":\"ping\"}\n";
        let idle: Vec<_> =
            (0..MAX_CLIENTS).map(|_| StdStream::connect(socket_path(&path)).unwrap()).collect();
        // They are accepted in this order.
        assert_eq!(line_for(&path, ping)["code"], "busy");
        drop(idle);
        while line_for(&path, ping)["type"] != "done" {}
    })
    .await;
}

#[actix_rt::test]
async fn a_socket_that_was_left_behind_is_replaced_and_nobody_else_may_connect() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Client::connect(directory.path()).unwrap().is_none());
    drop(StdListener::bind(socket_path(directory.path())).unwrap());
    assert!(Client::connect(directory.path()).unwrap().is_none());

    let _socket = Socket::bind(directory.path()).unwrap();

    let metadata = fs::metadata(socket_path(directory.path())).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_daemon_removes_its_own_socket_and_not_that_of_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(directory.path());
    let hung = Socket::bind(directory.path()).unwrap();
    let next = Socket::bind(directory.path()).unwrap();

    hung.file().remove().unwrap();
    assert!(path.exists());

    next.file().remove().unwrap();
    assert!(!path.exists());
    next.file().remove().unwrap();
}

#[test]
fn a_request_that_is_too_long_is_not_sent_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let _socket = Socket::bind(directory.path()).unwrap();
    let client = Client::connect(directory.path()).unwrap().unwrap();

    let error = client.request("echo", "x".repeat(MAX_REQUEST_BYTES).into()).err().unwrap();

    assert!(matches!(error, ClientError::TooBig(bytes) if bytes > MAX_REQUEST_BYTES), "{error}");
}

#[actix_rt::test]
async fn a_daemon_that_dies_is_not_taken_for_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let listener = StdListener::bind(socket_path(directory.path())).unwrap();
    let client = Client::connect(directory.path()).unwrap().unwrap();
    let answers = client.request("ping", Value::Null).unwrap();

    drop(listener.accept().unwrap());

    assert!(matches!(answers.finish(|_| {}), Err(ClientError::Gone)));
}
