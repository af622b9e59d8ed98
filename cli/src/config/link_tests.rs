//! What `[engine] gateways` and `[engine.link]` take, and every refusal with its line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory with a key for links that others cannot read, and a certificate with its key.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        files.write("link.key", &"k".repeat(32), 0o600);
        files.write("open.key", &"k".repeat(32), 0o644);
        files.write("short.key", "k", 0o600);
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        files.write("a.pem", &made.cert.pem(), 0o644);
        files.write("a.key", &made.signing_key.serialize_pem(), 0o600);
        files
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, text: &str) -> Result<Config, ConfigError> {
        Config::read(text, &self.path("nightcore.toml"), Overrides::default())
    }

    fn link(&self, text: &str) -> Link {
        self.read(text).unwrap().engine.link.expect("gateways are named")
    }

    /// The message with which a text is refused, without the directory.
    fn refusal(&self, text: &str) -> String {
        let message = self.read(text).unwrap_err().to_string();
        message.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

const GATEWAYS: &str = "[engine]\ngateways = [\"10.0.0.1:8090\"]\n";
const LINK: &str = "[engine]\ngateways = [\"10.0.0.1:8090\"]\n[engine.link]\n";

#[test]
fn gateways_have_four_forms_and_each_is_dialled_once() {
    let files = Files::new();
    let link = files.link(
        "[engine]\nnode = \"host-1\"\nresolver = \"127.0.0.1:5353\"\n\
         gateways = [\"10.0.0.1:8090\", \"gw.example:8090\", \"srv:_n._tcp.example\", \"10.0.0.1:8090\",\n\
         \"unix:/run/engines.sock\"]\n\
         [engine.link]\nkey_file = \"link.key\"\n",
    );
    let names: Vec<String> = link.gateways.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["10.0.0.1:8090", "gw.example:8090", "srv:_n._tcp.example", "unix:/run/engines.sock"]
    );
    assert_eq!((link.node.as_str(), link.server_name), ("host-1", None));
    assert_eq!(link.resolver, Some("127.0.0.1:5353".parse().unwrap()));
    assert_eq!(link.trust, Trust::SharedKey { file: files.path("link.key") });
}

#[test]
fn without_gateways_nothing_is_dialled_and_a_host_has_a_name() {
    let files = Files::new();
    assert_eq!(files.read("[engine]\nnode = \"host-1\"\n").unwrap().engine.link, None);
    let node = files.link(&format!("{LINK}key_file = \"link.key\"\n")).node;
    assert!((1..=64).contains(&node.len()), "{node}");
}

#[test]
fn certificates_may_have_a_name_that_is_not_the_one_that_is_dialled() {
    let certificates = "certificate = \"a.pem\"\nkey = \"a.key\"\nauthorities = \"a.pem\"\n";
    let link = Files::new().link(&format!("{LINK}{certificates}server_name = \"gw.example\"\n"));
    assert!(matches!(link.trust, Trust::Certificates { .. }));
    assert_eq!(link.server_name.unwrap().to_str(), "gw.example");
    assert_eq!(
        Files::new().refusal(&format!("{LINK}{certificates}server_name = \"a b\"\n")),
        "nightcore.toml:7: engine.link.server_name: expected a host's name or address, got \"a b\""
    );
    assert_eq!(
        Files::new().refusal(&format!("{LINK}key_file = \"link.key\"\nserver_name = \"gw\"\n")),
        "nightcore.toml:5: engine.link.server_name: a name in certificates, but there are none: \
         key_file or insecure stands beside it"
    );
}

#[test]
fn a_gateway_that_cannot_be_dialled_is_refused() {
    let files = Files::new();
    let expected = "expected a gateway such as \"10.0.0.1:8090\", \"gw.example:8090\", \
                    \"srv:_nightcore._tcp.example\" or \"unix:/run/nightcore/engines.sock\"";
    for name in ["gw", "10.0.0.1", "gw:0", "http://gw:1", "srv:", "unix:engines.sock"] {
        assert_eq!(
            files.refusal(&format!("[engine]\ngateways = [\"{name}\"]\n")),
            format!("nightcore.toml:2: engine.gateways: {expected}, got \"{name}\"")
        );
    }
    for (value, got) in [("[]", "0"), ("\"gw:1\"", "\"gw:1\"")] {
        assert_eq!(
            files.refusal(&format!("[engine]\ngateways = {value}\n")),
            format!(
                "nightcore.toml:2: engine.gateways: expected an array of 1 to 64 gateways, got {got}"
            )
        );
    }
}

#[test]
fn gateways_and_what_is_proved_to_them_go_together() {
    let files = Files::new();
    assert_eq!(
        files.refusal(GATEWAYS),
        "nightcore.toml:1: engine.link: expected a table [engine.link], by which gateways and this \
         engine prove themselves, but the key is missing"
    );
    assert_eq!(
        files.refusal("[engine.link]\nkey_file = \"link.key\"\n"),
        "nightcore.toml:1: engine.gateways: expected an array of 1 to 64 gateways, but the key is \
         missing"
    );
    assert_eq!(
        files.refusal(LINK),
        "nightcore.toml:3: engine.link: expected key_file, or certificate, key and authorities, or \
         insecure = true, but the key is missing"
    );
}

#[test]
fn a_key_that_others_can_read_or_guess_is_refused_with_what_to_do() {
    let files = Files::new();
    let message = files.refusal(&format!("{LINK}key_file = \"open.key\"\n"));
    assert!(message.starts_with("nightcore.toml:4: engine.link.key_file: open.key: "), "{message}");
    assert!(message.contains("chmod"), "{message}");
    let message = files.refusal(&format!("{LINK}key_file = \"short.key\"\n"));
    assert!(message.contains("expected at least 32 bytes, got 1"), "{message}");
    assert!(message.contains("openssl rand"), "{message}");
}

#[test]
fn without_credentials_only_gateways_of_this_host_are_dialled() {
    let files = Files::new();
    let insecure =
        |name: &str| format!("[engine]\ngateways = [\"{name}\"]\n[engine.link]\ninsecure = true\n");
    for name in ["127.0.0.1:8090", "[::1]:8090", "localhost:8090", "unix:/run/engines.sock"] {
        assert_eq!(files.link(&insecure(name)).trust, Trust::Insecure);
    }
    for name in ["10.0.0.1:8090", "gw.example:8090", "srv:_n._tcp.example"] {
        assert_eq!(
            files.refusal(&insecure(name)),
            format!(
                "nightcore.toml:2: engine.gateways: expected gateways of this host, because insecure \
                 = true proves nothing, got \"{name}\" (key_file, or certificate, key and \
                 authorities in [engine.link] permit others)"
            )
        );
    }
}

#[test]
fn a_node_has_a_name_like_a_function() {
    let long = "a".repeat(65);
    for node in ["", "a b", &long] {
        let message = Files::new().refusal(&format!("[engine]\nnode = \"{node}\"\n"));
        assert!(message.starts_with("nightcore.toml:2: engine.node: expected a name of 1 to 64"));
    }
}
