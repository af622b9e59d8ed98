//! TLS as a client sees it: an authority of the test's own, certificates that it signs, and connections
//! that believe in it alone.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tempfile::TempDir;

use crate::client::Connection;
use crate::watchdog::PATIENCE;

/// An authority and the certificates it has signed, in a directory of their own: `authority.pem`, and
/// `<name>.pem` with `<name>.key`.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Secured {
    session: ClientConnection,
    socket: TcpStream,
}

impl Authority {
    /// A new one, which has signed a certificate for `server`.
    ///
    /// # Panics
    /// If the system does not let it.
    #[must_use]
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("a source of random numbers");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the test");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a complete request");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a certificate");
        let directory = TempDir::with_prefix("nightcore-tls-").expect("a temporary directory");
        save(directory.path(), "authority.pem", &certificate.pem());
        let issuer = Issuer::new(params, key);
        let authority = Authority { directory, issuer, roots: Arc::new(roots) };
        authority.sign("server");
        authority
    }

    /// Signs a certificate for 127.0.0.1 with a new key, in place of the former one of this name.
    ///
    /// # Panics
    /// If the directory cannot be written.
    pub fn sign(&self, name: &str) {
        let (certificate, key) = self.signed();
        save(self.directory.path(), &format!("{name}.pem"), &certificate.pem());
        save(self.directory.path(), &format!("{name}.key"), &key.serialize_pem());
    }

    fn signed(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a source of random numbers");
        let names = vec![Ipv4Addr::LOCALHOST.to_string()];
        let mut params = CertificateParams::new(names).expect("an address");
        params.distinguished_name.push(DnType::CommonName, "signed by the test");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).expect("a complete request"), key)
    }

    /// A file of its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The lines of a section that name certificate and key.
    #[must_use]
    pub fn lines(&self, name: &str) -> String {
        let path = |end: &str| self.path(&format!("{name}.{end}"));
        let (certificate, key) = (path("pem"), path("key"));
        format!("certificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display())
    }

    /// What clients need to know of it.
    ///
    /// # Panics
    /// If the library does not know TLS 1.3.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("it is known");
        Arc::new(builder.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth())
    }

    /// The same for a client that has a certificate signed here, but believes in `believed`.
    ///
    /// # Panics
    /// If the library does not know TLS 1.3.
    #[must_use]
    pub fn client_with_certificate(&self, believed: &Authority) -> Arc<ClientConfig> {
        let (certificate, key) = self.signed();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("it is known")
            .with_root_certificates(Arc::clone(&believed.roots))
            .with_client_auth_cert(vec![certificate.der().clone()], key);
        Arc::new(builder.expect("they belong together"))
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Secured {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What the system or TLS says.
    pub fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Secured> {
        Secured::open_with(address, config, &[])
    }

    /// The same, and sends bytes together with the end of the handshake.
    ///
    /// # Errors
    /// What the system or TLS says.
    pub fn open_with(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        early: &[u8],
    ) -> io::Result<Secured> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut secured = Secured { session, socket };
        // Kept until it may be sent, which is when the handshake ends.
        secured.session.writer().write_all(early)?;
        while secured.session.is_handshaking() {
            secured.session.complete_io(&mut secured.socket)?;
        }
        Ok(secured)
    }

    /// Whether the handshake was a full one or went on with an earlier session.
    #[must_use]
    pub fn kind(&self) -> Option<HandshakeKind> {
        self.session.handshake_kind()
    }

    /// What both sides agreed to speak, if they named anything.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// The certificate that the server showed.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        Some(self.session.peer_certificates()?.first()?.as_ref())
    }

    /// Its socket, past TLS.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Changes the keys of the session, as both sides may at any time.
    ///
    /// # Errors
    /// What TLS says.
    pub fn refresh_keys(&mut self) -> io::Result<()> {
        self.session.refresh_traffic_keys().map_err(io::Error::other)
    }

    /// Says by TLS that nothing follows, and leaves the socket's half open.
    ///
    /// # Errors
    /// What the system says.
    pub fn say_end(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Read for Secured {
    /// The end is one only if the server says so; without that it is `UnexpectedEof`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.session, &mut self.socket).read(buffer)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.session, &mut self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut self.session, &mut self.socket).flush()
    }
}

/// What a [`Connection`] goes over.
#[derive(Debug)]
pub enum Stream {
    /// A bare socket.
    Plain(TcpStream),
    /// TLS.
    Secured(Box<Secured>),
}

impl Stream {
    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Secured(secured) => secured.socket(),
        }
    }

    /// Ends the sending half, in TLS's words if there is TLS.
    pub fn end_sending(&mut self) {
        // A peer that has closed already makes these fail, and nothing is lost by it.
        if let Stream::Secured(secured) = self {
            let _ = secured.say_end();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Secured(secured) => secured.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Secured(secured) => secured.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Secured(secured) => secured.flush(),
        }
    }
}

impl Connection {
    /// Connects with TLS.
    ///
    /// # Errors
    /// What the system or TLS says.
    pub fn open_secured(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Connection> {
        let secured = Secured::open(address, config)?;
        Ok(Connection::over(Stream::Secured(Box::new(secured))))
    }
}

/// A file that only its owner can read, replaced at once.
fn save(directory: &Path, name: &str, text: &str) {
    let (path, next) = (directory.join(name), directory.join(format!("{name}.next")));
    fs::write(&next, text).expect("a file");
    fs::set_permissions(&next, Permissions::from_mode(0o600)).expect("it is ours");
    fs::rename(&next, &path).expect("the same directory");
}
