//! Servers behind TLS, and their certificates.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Makes a certificate for 127.0.0.1 that nobody signed but itself: `certificate.pem` and `key.pem`.
pub fn make_certificate(directory: &Path) {
    let config = "[req]\ndistinguished_name = name\nx509_extensions = server\nprompt = no\n\
                  [name]\nCN = server of a test\n\
                  [server]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n";
    fs::write(directory.join("request"), config).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", "request"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(directory)
        .output()
        .expect("openssl is needed: the package of PostgreSQL brings it");
    assert!(made.status.success(), "{made:?}");
}

/// Answers each request of HTTP that comes by TLS with `answer`, with the certificate of a directory, as long as
/// the test lives.
pub fn serve(directory: &Path, answer: &'static str) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(tls, socket.unwrap()));
            answer_one(&mut stream, answer).ok();
        }
    });
    address
}

fn answer_one(stream: &mut BufReader<impl Read + Write>, answer: &str) -> std::io::Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    stream.read_exact(&mut vec![0; length])?;
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    let stream = stream.get_mut();
    write!(stream, "{head} {}\r\n\r\n{answer}", answer.len())?;
    stream.flush()
}
