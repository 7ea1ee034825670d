//! A handler over HTTP on loopback: records what it is sent, and answers as a test says.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Call {
    /// A value of the envelope, by its JSON Pointer.
    pub(crate) fn at(&self, pointer: &str) -> Value {
        let envelope: Value = serde_json::from_str(&self.body).expect("an envelope");
        envelope.pointer(pointer).cloned().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// A status, one header, and a body.
    With(u16, (&'static str, String), String),
    /// Nothing for a long time.
    Hang,
    /// The connection is dropped.
    Drop,
    /// An answer whose body never ends: a byte now and then.
    Slow,
    /// An answer with a body of so many bytes.
    Giant(usize),
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Reply::Answer(200, String::new())
    }

    pub(crate) fn status(status: u16) -> Self {
        Reply::Answer(status, String::new())
    }
}

type Answerer = dyn Fn(&Call) -> Reply + Send + Sync;

/// The server; it ends with the test's process.
pub(crate) struct HandlerServer {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl HandlerServer {
    pub(crate) fn start(answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), answer)
    }

    /// One that sends back what it got, as the Provisioning API's own example does.
    pub(crate) fn echo() -> Self {
        Self::start(|call| Reply::Answer(200, call.body.clone()))
    }

    pub(crate) fn start_at(address: SocketAddr, answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (shared, answer): (_, Arc<Answerer>) = (Arc::clone(&calls), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (calls, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                thread::spawn(move || serve(&connection, &calls, &*answer));
            }
        });
        HandlerServer { address, calls }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls so far, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }
}

fn serve(connection: &TcpStream, calls: &Mutex<Vec<Call>>, answer: &Answerer) {
    let _ = connection.set_nodelay(true);
    let mut reader = BufReader::new(connection);
    while let Some(call) = read(&mut reader) {
        calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        if reply(connection, &answer(&call)).is_none() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Call> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call { path, headers, body: String::from_utf8(body).ok()? })
}

/// Writes an answer; `None` if the connection ends with it.
fn reply(mut connection: &TcpStream, reply: &Reply) -> Option<()> {
    let mut write = |text: &str| connection.write_all(text.as_bytes()).ok();
    match reply {
        Reply::Answer(status, body) => {
            write(&format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        }
        Reply::With(status, (name, value), body) => {
            write(&format!("HTTP/1.1 {status} X\r\n{name}: {value}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        }
        Reply::Drop => None,
        Reply::Hang => {
            thread::sleep(Duration::from_secs(60));
            None
        }
        Reply::Slow => {
            write("HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n")?;
            for _ in 0..600 {
                write(" ")?;
                thread::sleep(Duration::from_millis(100));
            }
            None
        }
        Reply::Giant(size) => {
            write(&format!("HTTP/1.1 200 X\r\ncontent-length: {size}\r\n\r\n"))?;
            for _ in 0..size / 1024 {
                write(&" ".repeat(1024))?;
            }
            None
        }
    }
}
