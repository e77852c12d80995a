//! The common part of the two record processors: reports to the test, over a socket.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};

use base64::Engine as _;
use serde_json::{Value, json};

/// The connection of one child to the test.
pub struct Test {
    socket: TcpStream,
    pub shard: String,
}

impl Test {
    /// Connects to the port, which is the only argument.
    pub fn connect() -> Self {
        let port = std::env::args().nth(1).expect("argv: PORT");
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
        Self { socket, shard: "?".to_owned() }
    }

    pub fn report(&mut self, what: &str, body: Value) {
        let event = json!({"pid": std::process::id(), "shard": self.shard, "what": what, "body": body});
        self.socket.write_all(format!("{event}\n").as_bytes()).unwrap();
    }
}

/// A record in the form that the test parses.
pub fn record(data: &[u8], key: &str, sequence: &str, sub: Option<u64>) -> Value {
    json!({
        "data": base64::engine::general_purpose::STANDARD.encode(data),
        "partitionKey": key,
        "sequenceNumber": sequence,
        "subSequenceNumber": sub,
    })
}
