//! A client that says what it is told to, byte for byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::bank::{Bank, PLACE};

/// A message of the protocol.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

pub(super) fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

/// Values in binary.
pub(super) fn bind(portal: &str, statement: &str, values: &[&[u8]]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\u{1}\0\u{1}").into_bytes();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value);
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

pub(super) fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

impl Said {
    /// The SQLSTATE of an error.
    pub(super) fn code(&self) -> String {
        assert_eq!(self.kind, b'E', "{self:?}");
        let mut fields = self.body.split(|byte| *byte == 0);
        let code = fields.find_map(|field| field.strip_prefix(b"C"));
        String::from_utf8_lossy(code.unwrap_or_default()).into_owned()
    }

    /// Its text, roughly.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).replace('\0', " ")
    }
}

/// A connection through a tunnel, or whatever else carries bytes.
pub(super) struct Raw<S = TcpStream>(pub(super) S);

impl Raw {
    /// Ready for statements.
    pub(super) fn ready(port: u16) -> Self {
        let mut raw = Self::begun(port, &[]);
        let said = raw.until(b'Z');
        assert_eq!(said.last().unwrap().body, b"I", "{said:?}");
        raw
    }

    /// The startup message is sent, with further parameters.
    pub(super) fn begun(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut raw = Self::open(port);
        raw.begin(parameters);
        raw
    }

    pub(super) fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }
}

impl<S: Read + Write> Raw<S> {
    /// Sends the startup message, with further parameters.
    pub(super) fn begin(&mut self, parameters: &[(&str, &str)]) {
        self.begin_with(0, parameters);
    }

    /// The same of this minor version.
    pub(super) fn begin_with(&mut self, minor: u16, parameters: &[(&str, &str)]) {
        let own = [("user", PLACE), ("database", "orders")];
        let mut body = (196_608 + u32::from(minor)).to_be_bytes().to_vec();
        let given = |name: &str| parameters.iter().any(|(other, _)| *other == name);
        let own = own.iter().filter(|(name, _)| !given(name));
        for (name, value) in own.chain(parameters) {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap();
        self.say(&[&length.to_be_bytes()[..], &body].concat());
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next message; none when the connection is closed.
    pub(super) fn hear(&mut self) -> Option<Said> {
        let mut header = [0; 5];
        self.0.read_exact(&mut header).ok()?;
        let [kind, length @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.0.read_exact(&mut body).ok()?;
        Some(Said { kind, body })
    }

    /// Everything up to a message of this kind.
    #[track_caller]
    pub(super) fn until(&mut self, kind: u8) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            let Some(said) = self.hear() else {
                panic!("closed after {all:?}")
            };
            all.push(said);
            if all.last().is_some_and(|said| said.kind == kind) {
                return all;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Says this, and what is answered up to ReadyForQuery.
    #[track_caller]
    pub(super) fn ask(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.say(bytes);
        self.until(b'Z')
    }
}

/// What carries bytes within TLS.
pub(super) type Secured = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Within TLS at the gateway's own port, before the startup message.
pub(super) fn secured(bank: &Bank, mut config: rustls::ClientConfig) -> Raw<Secured> {
    let mut raw = Raw::open(bank.port());
    raw.say(&[0, 0, 0, 8, 4, 210, 22, 47]);
    let mut answer = [0];
    raw.0.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = "localhost".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    Raw(rustls::StreamOwned::new(tls, raw.0))
}

/// The kinds of messages.
pub(super) fn kinds(said: &[Said]) -> String {
    said.iter().map(|said| char::from(said.kind)).collect()
}
