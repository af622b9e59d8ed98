//! Every refusal with its exact line, and what a good file resolves to.

use std::fs;

use protocol::message::Repeat;

use super::*;

/// A directory with a file `lib.so` beside the configuration, and the search that finds it.
pub(super) struct Fixture {
    pub(super) directory: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lib.so"), b"").unwrap();
        Fixture { directory }
    }

    pub(super) fn parse_with(
        &self,
        text: &str,
        overrides: Overrides,
    ) -> Result<Config, ConfigError> {
        let search = Search::of(&[self.directory.path()]);
        Config::parse(text, Path::new("nightcore.toml"), overrides, &search)
    }

    pub(super) fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        self.parse_with(text, Overrides::default())
    }
}

/// The message with which `text` is refused.
pub(super) fn refusal(text: &str) -> String {
    refusal_with(text, Overrides::default())
}

fn refusal_with(text: &str, overrides: Overrides) -> String {
    let message = Fixture::new().parse_with(text, overrides).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

/// A good function whose next line is line 4.
pub(super) const FUNCTION: &str = "[[function]]\nname = \"f\"\nlibrary = \"lib.so\"\n";

pub(super) fn refused_function(line: &str) -> String {
    refusal(&format!("{FUNCTION}{line}\n"))
}

#[test]
fn a_refusal_is_one_line_whatever_keys_and_paths_hold() {
    let known = "unknown key, expected one of gateway, auth, engine, function";
    let message = refusal("\"a\\nb\" = 1");
    assert_eq!(message, format!("nightcore.toml:1: a\\nb: {known}"));
    let fixture = Fixture::new();
    let text = "[[function]]\nname = \"f\"\nlibrary = \"a\\n\\u001b[1m\"\n";
    let message = fixture.parse(text).unwrap_err().to_string();
    assert!(message.ends_with("/a\\n\\u{1b}[1m"), "{message:?}");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = Fixture::new().parse("").unwrap();
    assert_eq!(config.gateway.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.gateway.body_max, 16 << 20);
    assert_eq!(config.admin_listen(), None);
    assert_eq!(config.engine.shards, None);
    assert_eq!(config.engine.depth_max, 16);
    assert_eq!(config.engine.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.functions, []);
}

#[test]
fn a_function_of_two_lines_gets_the_other_values_by_default() {
    let fixture = Fixture::new();
    let config = fixture.parse(FUNCTION).unwrap();
    let expected = Function {
        name: "f".into(),
        library: fixture.directory.path().join("lib.so"),
        min_workers: 1,
        max_workers: 128,
        timeout: Duration::from_secs(30),
        container: ContainerKind::Sandbox,
        memory: None,
        pids: None,
        cpu_quota: None,
        network: false,
        read_only: vec![],
        placement: Placement::Core,
        env: vec![],
        queue_max: 1024,
        queue_wait_max: None,
        concurrency: Concurrency::Managed,
        concurrency_limit: None,
        rate_limit: None,
        grace: Duration::from_secs(5),
        idle_timeout: None,
        breaker_deaths: 5,
        breaker_window: Duration::from_secs(1),
        log_rate: 1000,
        repeat: Repeat::Never,
        line: 1,
    };
    assert_eq!(config.functions, [expected]);
}

#[test]
fn every_key_is_read() {
    let text = r#"
        [gateway]
        listen = "0.0.0.0:80"
        admin_listen = "0.0.0.0:81"
        insecure = true
        body_max = "1MiB"
        connections_max = 100
        head_timeout = "1s"
        body_timeout = "2s"
        idle_timeout = "3s"
        write_timeout = "4s"
        access_log = "/var/log/access.log"
        cors_origins = ["https://a.example"]
        [auth]
        keys_file = "/etc/keys.toml"
        [engine]
        shards = 2
        runtime_dir = "/run/nightcore"
        drain_timeout = "5s"
        depth_max = 8
        priority = "normal"
        container = "process"
        require = true
        oci_runtime = "crun"
        oci_rootfs = "/srv/rootfs"
        admin_listen = "0.0.0.0:82"
        insecure = true
        [[function]]
        name = "first"
        library = "lib.so"
        min_workers = 0
        max_workers = 256
        timeout = "500ms"
        memory = "64MiB"
        placement = "free"
        queue_max = 0
        queue_wait_max = "100ms"
        concurrency = "fixed"
        concurrency_limit = 10
        rate_limit = 1000
        grace = "1s"
        idle_timeout = "1h"
        breaker_deaths = 3
        breaker_window = "10s"
        log_rate = 50
        idempotent = true
        container = "oci"
        pids = 20
        cpu_quota = 1.5
        network = true
        read_only = ["/usr"]
        env = { A = "1", B = "2" }
        [[function]]
        name = "second"
        library = "lib.so"
        memory = 0x4000000
        [function.env]
        C = "3"
    "#;
    let fixture = Fixture::new();
    let config = fixture.parse(text).unwrap();
    let seconds = Duration::from_secs;
    let gateway = Gateway {
        listen: "0.0.0.0:80".parse().unwrap(),
        admin_listen: Some("0.0.0.0:81".parse().unwrap()),
        body_max: 1 << 20,
        connections_max: 100,
        head_timeout: seconds(1),
        body_timeout: seconds(2),
        idle_timeout: seconds(3),
        write_timeout: seconds(4),
        access_log: Some(Destination::File("/var/log/access.log".into())),
        cors_origins: vec!["https://a.example".into()],
        queue: 1024,
        tls: None,
        engines: None,
        http2: None,
    };
    assert_eq!(config.gateway, gateway);
    assert_eq!(
        config.auth,
        Some(AuthSource { keys_file: Some("/etc/keys.toml".into()), jwt: None })
    );
    let engine = Engine {
        shards: Some(2),
        runtime_dir: Some("/run/nightcore".into()),
        drain_timeout: seconds(5),
        depth_max: 8,
        priority: Priority::Normal,
        container: ContainerKind::Process,
        require: true,
        oci_runtime: "crun".into(),
        oci_rootfs: Some("/srv/rootfs".into()),
        admin_listen: Some("0.0.0.0:82".parse().unwrap()),
        link: None,
    };
    assert_eq!(config.engine, engine);
    let [first, second] = &config.functions[..] else { panic!("two functions") };
    assert_eq!((first.min_workers, first.max_workers, first.queue_max), (0, 256, 0));
    assert_eq!(first.queue_wait_max, Some(Duration::from_millis(100)));
    assert_eq!(first.concurrency, Concurrency::Fixed);
    assert_eq!((first.container, first.network), (ContainerKind::Oci, true));
    assert_eq!((first.pids, first.cpu_quota), (Some(20), Some(1500)));
    assert_eq!(first.read_only, [PathBuf::from("/usr")]);
    assert_eq!(second.container, ContainerKind::Process, "as in [engine]");
    assert_eq!((first.concurrency_limit, first.rate_limit), (Some(10), Some(1000)));
    assert_eq!((first.grace, first.idle_timeout), (seconds(1), Some(seconds(3600))));
    assert_eq!((first.breaker_deaths, first.breaker_window), (3, seconds(10)));
    assert_eq!(first.log_rate, 50);
    assert_eq!((first.repeat, second.repeat), (Repeat::Idempotent, Repeat::Never));
    assert_eq!(first.timeout, Duration::from_millis(500));
    assert_eq!((first.memory, second.memory), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(first.placement, Placement::Free);
    assert_eq!(first.env, [("A".into(), "1".into()), ("B".into(), "2".into())]);
    assert_eq!(second.env, [("C".into(), "3".into())]);
    assert_eq!((first.line, second.line), (28, 53));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let overrides = Overrides {
        listen: Some("127.0.0.1:1234".parse().unwrap()),
        shards: Some(3),
        ..Overrides::default()
    };
    let text = "[gateway]\nlisten = \"0.0.0.0:80\"\n[engine]\nshards = 2\n";
    let config = Fixture::new().parse_with(text, overrides).unwrap();
    assert_eq!(config.gateway.listen.port(), 1234);
    assert_eq!(config.engine.shards, Some(3));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/nightcore.toml"), Overrides::default());
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/nightcore.toml: cannot be read: No such file"));
}

#[test]
fn a_file_that_is_not_toml_is_refused_at_its_line() {
    let message = refusal("[gateway]\n\nlisten = = 3\n");
    assert!(message.starts_with("nightcore.toml:3: not valid TOML: "), "{message}");
    let message = refusal("[engine]\nshards = 1\nshards = 2\n");
    assert!(message.starts_with("nightcore.toml:3: not valid TOML: "), "{message}");
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    assert_eq!(
        refusal("\n[getaway]\n"),
        "nightcore.toml:2: getaway: unknown key, expected one of gateway, auth, engine, function"
    );
    assert_eq!(
        refusal("[engine]\nshards = 1\nshard = 2\n"),
        "nightcore.toml:3: engine.shard: unknown key, \
         expected one of shards, runtime_dir, drain_timeout, depth_max, priority, \
         container, require, oci_runtime, oci_rootfs, admin_listen, insecure, \
         node, gateways, resolver, link"
    );
    assert_eq!(
        refused_function("time_out = \"3s\""),
        "nightcore.toml:4: function.time_out: unknown key, expected one of name, library, \
         min_workers, max_workers, timeout, container, memory, pids, cpu_quota, network, read_only, \
         placement, env, queue_max, queue_wait_max, concurrency, \
         concurrency_limit, rate_limit, grace, idle_timeout, breaker_deaths, breaker_window, log_rate, \
         idempotent"
    );
    let message = refusal("[gateway]\nport = 80");
    assert!(message.starts_with("nightcore.toml:2: gateway.port: unknown key, "), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    let cases = [
        ("gateway = 1", "1: gateway: expected a table [gateway], got 1"),
        ("function = {}", "1: function: expected tables [[function]], got a table"),
        (
            "[gateway]\nlisten = 8080",
            "2: gateway.listen: expected an address and port such as \"127.0.0.1:8080\", got 8080",
        ),
        ("[gateway]\ninsecure = 1", "2: gateway.insecure: expected true or false, got 1"),
        (
            "[engine]\n\nshards = \"two\"",
            "3: engine.shards: expected an integer from 1 to 256, got \"two\"",
        ),
        (
            "[engine]\ndepth_max = 1.5",
            "2: engine.depth_max: expected an integer from 1 to 256, got 1.5",
        ),
        (
            "[engine]\nruntime_dir = []",
            "2: engine.runtime_dir: expected an absolute path, got an array",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), format!("nightcore.toml:{expected}"));
    }
}

#[test]
fn a_bad_duration_is_refused() {
    assert_eq!(
        refused_function("timeout = \"fast\""),
        "nightcore.toml:4: function.timeout: \
         expected a duration such as \"500ms\" or \"30s\", got \"fast\""
    );
    assert_eq!(
        refused_function("timeout = 30"),
        "nightcore.toml:4: function.timeout: \
         expected a duration such as \"500ms\" or \"30s\", got 30"
    );
    assert_eq!(
        refused_function("timeout = \"0s\""),
        "nightcore.toml:4: function.timeout: expected a duration from 1ms to 24h, got \"0s\""
    );
    assert_eq!(
        refusal("[gateway]\nidle_timeout = \"25h\""),
        "nightcore.toml:2: gateway.idle_timeout: expected a duration from 1ms to 24h, got \"25h\""
    );
}

#[test]
fn a_bad_size_is_refused() {
    assert_eq!(
        refusal("[gateway]\nbody_max = \"16MB\""),
        "nightcore.toml:2: gateway.body_max: \
         expected a size such as \"64KiB\", \"16MiB\" or 65536, got \"16MB\""
    );
    assert_eq!(
        refusal("[gateway]\nbody_max = \"1GiB\""),
        "nightcore.toml:2: gateway.body_max: expected a size from 1B to 256MiB, got \"1GiB\""
    );
    assert_eq!(
        refused_function("memory = -1"),
        "nightcore.toml:4: function.memory: \
         expected a size such as \"64KiB\", \"16MiB\" or 65536, got -1"
    );
    assert_eq!(
        refused_function("memory = 0"),
        "nightcore.toml:4: function.memory: expected a size from 1MiB to 1024TiB, got 0"
    );
}

#[test]
fn a_number_out_of_range_is_refused() {
    let cases = [
        ("max_workers = 257", "function.max_workers: expected an integer from 1 to 256, got 257"),
        ("max_workers = 0", "function.max_workers: expected an integer from 1 to 256, got 0"),
        ("min_workers = -1", "function.min_workers: expected an integer from 0 to 256, got -1"),
        (
            "breaker_deaths = 0",
            "function.breaker_deaths: expected an integer from 1 to 1000, got 0",
        ),
        ("rate_limit = 0", "function.rate_limit: expected an integer from 1 to 10000000, got 0"),
        ("queue_max = 65537", "function.queue_max: expected an integer from 0 to 65536, got 65537"),
    ];
    for (line, expected) in cases {
        assert_eq!(refused_function(line), format!("nightcore.toml:4: {expected}"));
    }
    assert_eq!(
        refusal("[gateway]\nconnections_max = 0"),
        "nightcore.toml:2: gateway.connections_max: expected an integer from 1 to 16384, got 0"
    );
}

#[test]
fn a_choice_that_is_none_is_refused() {
    assert_eq!(
        refused_function("placement = \"here\""),
        "nightcore.toml:4: function.placement: expected \"core\" or \"free\", got \"here\""
    );
    assert_eq!(
        refusal("[engine]\npriority = 10"),
        "nightcore.toml:2: engine.priority: expected \"adaptive\" or \"high\" or \"groups\" or \"normal\", got 10"
    );
}

#[test]
fn a_state_that_others_see_is_refused_unless_called_insecure() {
    let reason =
        "expected a loopback address, because whoever reaches it sees the state of the host";
    for section in ["gateway", "engine"] {
        assert_eq!(
            refusal(&format!("[{section}]\nadmin_listen = \"0.0.0.0:81\"")),
            format!(
                "nightcore.toml:2: {section}.admin_listen: {reason}, got \"0.0.0.0:81\" \
                 (insecure = true in [{section}] permits it)"
            )
        );
        assert_eq!(
            refusal(&format!("[{section}]\nadmin_listen = 81")),
            format!(
                "nightcore.toml:2: {section}.admin_listen: \
                 expected an address and port such as \"127.0.0.1:8079\", got 81"
            )
        );
    }
}

#[test]
fn the_state_is_to_be_seen_where_the_section_of_the_role_says() {
    let text = "[gateway]\nadmin_listen = \"127.0.0.1:1\"\n\
                [engine]\nadmin_listen = \"127.0.0.1:2\"\n";
    for (role, port) in [(Role::Host, 1), (Role::Gateway, 1), (Role::Engine, 2)] {
        let overrides = Overrides { role, ..Overrides::default() };
        let config = Fixture::new().parse_with(text, overrides).unwrap();
        assert_eq!(config.admin_listen().map(|address| address.port()), Some(port));
    }
}

#[test]
fn a_long_value_is_quoted_in_part_and_on_one_line() {
    let message = refused_function(&format!("timeout = \"\"\"a\nb{}\"\"\"", "x".repeat(500)));
    assert!(message.contains(r#"got "a\nbxxx"#), "{message}");
    assert!(message.ends_with("...") && message.len() < 200, "{message}");
}
