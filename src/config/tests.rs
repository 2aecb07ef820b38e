//! Layers of settings, what is wrong with them, and states a gateway refuses.

use std::io::Write as _;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use super::*;
use crate::document::{Problems, empty_environment};
use crate::secret::Secret;

#[track_caller]
fn parse(args: &[&str]) -> Options {
    let args = ["causeway", "run"].iter().chain(args);
    let cli = Cli::try_parse_from(args).unwrap_or_else(|error| panic!("{error}"));
    let Command::Run(serve) = cli.command else { panic!("{cli:?}") };
    *serve.options
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn resolve(args: &[&str], text: &str) -> Result<Settings, Problems> {
    let file = file(text);
    Settings::resolve(parse(args), Some(file.path()), &empty_environment)
}

fn defaults() -> Settings {
    Settings::resolve(Options::default(), None, &empty_environment).unwrap()
}

/// The problems, without the name of the file.
#[track_caller]
fn problems(args: &[&str], text: &str) -> Vec<String> {
    let problems = resolve(args, text).expect_err(text);
    problems
        .iter()
        .map(|problem| match problem.place {
            Some(place) => format!("{}:{}: {}", place.line, place.column, problem.message),
            None => problem.to_string(),
        })
        .collect()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn an_id_may_begin_with_a_hyphen() {
    let id = "-3JTAAAAzDzDMAs=";
    for words in [&["connections", "get"][..], &["connections", "send"], &["connections", "close"], &["nodes", "bury"]]
    {
        let args = [&["causeway"], words, &["--admin", "127.0.0.1:1", id]].concat();
        let cli = Cli::try_parse_from(args).unwrap_or_else(|error| panic!("{error}"));
        assert!(format!("{cli:?}").contains(id), "{cli:?}");
        assert!(format!("{cli:?}").contains("127.0.0.1:1"), "{cli:?}");
    }
}

#[test]
fn the_check_knows_every_keyword_of_the_schema() {
    assert_eq!(crate::document::unchecked(&json_schema()), [""; 0]);
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_key_of_one_name() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let schema = json_schema();
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert!(keys.len() > 20);
    for key in keys {
        // Levels within levels: no flag could hold them.
        if key == "iam" {
            assert!(run.get_arguments().all(|arg| arg.get_id() != "iam"));
            continue;
        }
        let id = key.replace('-', "_");
        let arg = run.get_arguments().find(|arg| arg.get_id() == id.as_str()).unwrap_or_else(|| panic!("{key}"));
        let variable = format!("CAUSEWAY_{}", id.to_uppercase());
        assert_eq!(arg.get_env(), Some(std::ffi::OsStr::new(&variable)), "{key}");
        assert!(arg.is_positional() == (key == "routes") && (key == "routes" || arg.get_long() == Some(key)), "{key}");
    }
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = defaults();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.routes, std::path::Path::new("routes"));
    assert_eq!((settings.log_format, settings.log_level), (LogFormat::Text, LogLevel::Info));
    assert_eq!(settings.access_log, AccessLog::Stdout);
    assert_eq!((settings.tls.is_none(), settings.upstream_ca.is_none()), (true, true));
    assert_eq!((settings.drain_grace, settings.handshake_timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!((settings.max_header_bytes, settings.outbox_budget_bytes), (16_384, 256 << 20));
    assert_eq!((settings.reserved_files, settings.max_concurrency_per_upstream), (256, 512));
    assert_eq!(settings.max_sessions, settings.max_sessions_per_address);
    assert!(settings.shards >= 1 && settings.workers >= 1);
}

#[test]
fn a_file_sets_what_flags_leave_open() {
    let settings = resolve(
        &["--log-level", "warn", "--drain-batch", "5"],
        "log-level: debug\nlog-format: json\nlisten: 0.0.0.0:80\ndrain-grace: 1m\nmax-header-bytes: 32KiB\nshards: 3\n",
    )
    .unwrap();
    assert_eq!((settings.log_level, settings.log_format), (LogLevel::Warn, LogFormat::Json));
    assert_eq!((settings.listen.to_string(), settings.shards), ("0.0.0.0:80".to_owned(), 3));
    assert_eq!((settings.drain_grace, settings.drain_batch), (Duration::from_secs(60), 5));
    assert_eq!(settings.max_header_bytes, 32_768);
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let config = file("routes: apis\naccess-log: log/access\ntls-cert: c.pem\ntls-key: /abs/k.pem\n");
    let folder = config.path().parent().unwrap();
    let settings = Settings::resolve(Options::default(), Some(config.path()), &empty_environment).unwrap();
    assert_eq!(settings.routes, folder.join("apis"));
    assert_eq!(settings.access_log, AccessLog::File(folder.join("log/access")));
    let tls = settings.tls.unwrap();
    assert_eq!((tls.cert, tls.key), (folder.join("c.pem"), "/abs/k.pem".into()));
    let from_flag = resolve(&["here", "--access-log", "off"], "routes: there\naccess-log: '-'\n").unwrap();
    assert_eq!((from_flag.routes, from_flag.access_log), ("here".into(), AccessLog::Off));
}

/// Runs only in the child that [`flags_win_over_variables_and_variables_over_the_file`] starts with its environment.
#[test]
#[ignore = "needs the environment that another test gives it"]
fn child_with_variables() {
    let text = "log-level: error\nlog-format: json\ndrain-batch: 1\n";
    let settings = resolve(&["--log-level", "trace"], text).unwrap();
    assert_eq!(settings.log_level, LogLevel::Trace, "flag over variable");
    assert_eq!(settings.log_format, LogFormat::Text, "variable over file");
    assert_eq!(settings.drain_batch, 1, "file over default");
    assert_eq!(settings.drain_interval, Duration::from_secs(1), "default");
    assert_eq!(settings.callback_token.unwrap().reveal(), "hunter2");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::tests::child_with_variables", "--ignored"])
        .envs([("CAUSEWAY_LOG_LEVEL", "warn"), ("CAUSEWAY_LOG_FORMAT", "text"), ("CAUSEWAY_CALLBACK_TOKEN", "hunter2")])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn everything_wrong_with_a_file_is_told_at_once() {
    assert_eq!(
        problems(
            &[],
            "lissten: 1\nlog-level: loud\ndrain-grace: 30\nmax-sessions: 0\nadmin-token: 7\nlog_format: json\nshards: 1\nshards: 2\n"
        ),
        [
            "1:1: unknown key `lissten`, expected `listen`?",
            "2:12: `log-level` is `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`",
            "3:14: `drain-grace` is 30, expected a duration such as `500ms`, `30s`, `10m` or `2h`",
            "4:15: `max-sessions` is 0, expected a whole number from 1 to 16777216",
            "5:14: `admin-token` is 7, expected a text",
            "6:1: unknown key `log_format`, expected `log-format`?",
            "8:1: duplicate key `shards`, expected each key once",
        ]
    );
}

#[test]
fn settings_must_fit_each_other() {
    assert_eq!(
        problems(&["--tls-cert", "c.pem", "--admin", "nowhere"], "max-header-bytes: 10\nadmin-token: ''\n"),
        [
            "1:1: `max-header-bytes` is out of range, expected `1KiB` to `1MiB`",
            "2:1: `admin-token` does not fit a header, expected visible ASCII characters without spaces",
            "configuration: `admin` is `nowhere`, expected an address and a port such as `127.0.0.1:8080` or `[::]:443`",
            "configuration: `tls-cert` stands alone, expected `tls-key` beside it",
        ]
    );
    assert_eq!(
        problems(&["--listen", "127.0.0.1:8081"], ""),
        ["configuration: `admin` is the address of `listen` too, expected another"]
    );
    assert!(resolve(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], "").is_ok());
}

#[test]
fn nobody_is_believed_unless_named() {
    let proxies = defaults().proxies;
    assert!(proxies.trusted.is_empty() && !proxies.is_protocol_on);
    let settings =
        resolve(&["--proxy-protocol", "on"], "trusted-proxies: 10.0.0.0/24, ::1\nforwarded-header: forwarded\n")
            .unwrap();
    assert!(settings.proxies.is_protocol_on);
    assert_eq!(settings.proxies.header, crate::server::ForwardedHeader::Forwarded);
    assert!(settings.proxies.trusted.contains([10, 0, 0, 9].into()));
    assert_eq!(
        problems(&["--proxy-protocol", "on"], "forwarded-header: x-forwarded-for\n"),
        [
            "1:1: `forwarded-header` is believed of nobody, expected the proxies in `trusted-proxies`",
            "configuration: `proxy-protocol` is `on` and nobody may connect, expected the proxies in `trusted-proxies`",
        ]
    );
    assert_eq!(
        problems(&["--proxy-protocol", "on"], "trusted-proxies: 10.0.0.7/24\n"),
        ["1:1: `trusted-proxies` has `10.0.0.7/24`, expected the network `10.0.0.0/24` or the address `10.0.0.7`"]
    );
}

#[test]
fn secrets_may_be_references_and_are_never_shown() {
    let config = file("callback-token: ${env:TOKEN}\nadmin-token: ${env:SPACED}\n");
    let variables = |name: &str| match name {
        "TOKEN" => Some("hunter2".to_owned()),
        "SPACED" => Some("hunter2 hunter2".to_owned()),
        _ => None,
    };
    let problems = Settings::resolve(Options::default(), Some(config.path()), &variables).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(!problems.to_string().contains("hunter2"), "{problems}");

    let config = file("callback-token: ${env:TOKEN}\n");
    let settings = Settings::resolve(Options::default(), Some(config.path()), &variables).unwrap();
    assert!(settings.callback_token.as_ref().unwrap().matches(b"hunter2"));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

/// What a node of a cluster needs at least.
const MEMBER: [&str; 4] = ["--redis", "redis://10.0.0.9", "--cluster-secret", "sixteen characters"];

#[test]
fn a_node_is_alone_unless_it_has_a_registry() {
    assert!(defaults().cluster.is_none());
    let settings = resolve(&MEMBER, "").unwrap();
    let cluster = settings.cluster.unwrap();
    assert_eq!(cluster.registry.url.reveal(), "redis://10.0.0.9");
    assert_eq!((cluster.registry.prefix.as_str(), cluster.registry.ca_file.is_none()), ("causeway", true));
    assert_eq!(cluster.registry.timeout, Duration::from_millis(500));
    assert_eq!((cluster.node.lease, cluster.node.recovery_rate), (Duration::from_secs(10), 100));
    assert!(cluster.certificates.is_none() && cluster.node_address.is_none());
    assert!(cluster.node_listen.is_none() && cluster.node_name.is_none());
}

#[test]
fn a_file_says_everything_of_a_cluster() {
    let config = file(
        "redis: rediss://ann:hunter2@redis.internal:6380/3\nredis-prefix: shop.1\nredis-ca: redis.pem\n\
         redis-timeout: 250ms\ncluster-secret: 0123456789abcdef\ncluster-cert: node.pem\ncluster-key: /etc/node.key\n\
         cluster-ca: nodes.pem\nnode-address: node-1.internal:7400\nnode-listen: '[::]:7400'\nnode-name: one\n\
         node-lease: 5s\nrecovery-rate: 20\ndrain-close-code: 1012\n",
    );
    let folder = config.path().parent().unwrap();
    let settings = Settings::resolve(Options::default(), Some(config.path()), &empty_environment).unwrap();
    assert!(settings.drain_says_restart);
    let cluster = settings.cluster.unwrap();
    assert_eq!((cluster.registry.prefix.as_str(), cluster.registry.timeout), ("shop.1", Duration::from_millis(250)));
    assert_eq!(cluster.registry.ca_file, Some(folder.join("redis.pem")));
    assert!(cluster.secret.unwrap().matches(b"0123456789abcdef"));
    let certificates =
        NodeCertificates { cert: folder.join("node.pem"), key: "/etc/node.key".into(), ca: folder.join("nodes.pem") };
    assert_eq!(cluster.certificates, Some(certificates));
    assert_eq!(cluster.node_address.as_deref(), Some("node-1.internal:7400"));
    assert_eq!(cluster.node_listen, Some("[::]:7400".parse().unwrap()));
    assert_eq!(cluster.node_name.as_deref(), Some("one"));
    assert_eq!((cluster.node.lease, cluster.node.recovery_rate), (Duration::from_secs(5), 20));
}

#[test]
fn everything_wrong_with_a_cluster_is_told_at_once() {
    assert_eq!(
        problems(
            &["--cluster-key", "k.pem"],
            "redis: http://10.0.0.9\nredis-prefix: 'a:b'\ncluster-secret: too short\nnode-lease: 100ms\n\
             node-address: node-1\nnode-listen: node-1:7400\ndrain-close-code: 1005\n"
        ),
        [
            "1:1: `redis` is no address of a registry: begins with none of redis://, rediss://, redis+sentinel://, \
             rediss+sentinel://, redis+cluster://, rediss+cluster://",
            "2:1: `redis-prefix` does not fit a key, expected 1 to 64 of letters, digits, `.`, `_` and `-`",
            "3:1: `cluster-secret` is too short, expected at least 16 characters",
            "4:1: `node-lease` is out of range, expected `200ms` to `10m`",
            "5:1: `node-address` is `node-1`, expected a host and a port such as `10.0.0.5:7400` or \
             `node-1.internal:7400`",
            "6:1: `node-listen` is `node-1:7400`, expected an address and a port such as `127.0.0.1:8080` or `[::]:443`",
            "7:1: `drain-close-code` is out of range, expected `1001` or `1012`",
            "configuration: `cluster-key` stands alone, expected `cluster-cert`, `cluster-key` and `cluster-ca` together",
        ]
    );
    assert_eq!(
        problems(&MEMBER, "recovery-rate: 0\ndrain-close-code: 1000\nnode-name: ''\n"),
        [
            "1:16: `recovery-rate` is 0, expected a whole number from 1 to 100000",
            "2:19: `drain-close-code` is 1000, expected a whole number from 1001 to 1012",
            "3:12: `node-name` is ``, expected a text",
        ]
    );
    assert_eq!(
        problems(&MEMBER, "redis-timeout: 31s\n"),
        ["1:1: `redis-timeout` is out of range, expected `10ms` to `30s`"]
    );
    assert_eq!(
        problems(&MEMBER, "node-address: 10.0.0.5:0\n"),
        ["1:1: `node-address` is `10.0.0.5:0`, expected a host and a port such as `10.0.0.5:7400` or \
          `node-1.internal:7400`"]
    );
}

#[test]
fn what_is_for_a_cluster_does_not_stand_without_one() {
    let expected = |settings: [&str; 3]| {
        settings.map(|name| format!("configuration: `{name}` is for nodes of a cluster, expected `redis` beside it"))
    };
    let alone =
        ["--cluster-secret", "sixteen characters", "--node-address", "10.0.0.5:7400", "--node-listen", "0.0.0.0:7400"];
    assert_eq!(problems(&alone, ""), expected(["cluster-secret", "node-address", "node-listen"]));
}

#[test]
fn a_node_with_an_open_link_port_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let member = |settings: &[&str]| {
        let always = ["--redis", "redis://10.0.0.9", "--callback-token", "t"];
        resolve(&[&always, settings].concat(), "").unwrap()
    };
    let open = member(&[]);
    for mode in [Mode::Run, Mode::Dev] {
        let refusals = open.refusals(mode);
        assert!(refusals.len() == 1 && refusals[0].contains("--cluster-secret"), "{refusals:?}");
        assert!(
            refusals[0].contains("CAUSEWAY_CLUSTER_SECRET") && refusals[0].contains("--cluster-ca"),
            "{refusals:?}"
        );
    }
    assert_eq!(member(&["--cluster-secret", "sixteen characters"]).refusals(Mode::Run), [""; 0]);

    let key = tempfile::NamedTempFile::new().unwrap();
    let path = key.path().to_str().unwrap();
    let certified = member(&["--cluster-cert", "c.pem", "--cluster-key", path, "--cluster-ca", "a.pem"]);
    for (mode, refused) in [(0o600, 0), (0o644, 1)] {
        key.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        let refusals = certified.refusals(Mode::Run);
        assert_eq!(refusals.len(), refused, "{mode:o}");
        assert!(
            refusals.iter().all(|text| text.contains("chmod o-r") && text.contains("--cluster-key")),
            "{refusals:?}"
        );
    }
}

#[test]
fn secrets_of_a_cluster_are_never_shown() {
    let text = "redis: redis://ann:hunter2@10.0.0.9\ncluster-secret: hunter2 hunter2 hunter2\n";
    let shown = format!("{:?}", resolve(&[], text).unwrap());
    assert!(shown.contains("recovery_rate") && !shown.contains("hunter2"), "{shown}");
    // Each way a password can be in a URL that does not work, and a secret that is too short.
    for url in ["http://ann:hunter2@h", "redis://hunter2@h/x", "redis://:hunter2@h?db=1", "redis://ann:hunter2@h:port"]
    {
        let told = match resolve(&["--redis-prefix", "{}"], &format!("redis: '{url}'\ncluster-secret: hunter2\n")) {
            Ok(settings) => format!("{settings:?}"),
            Err(problems) => problems.to_string(),
        };
        assert!(told.contains("redis-prefix") && told.contains("cluster-secret"), "{told}");
        assert!(!told.contains("hunter2"), "{url}: {told}");
    }
    let options = parse(&["--redis", "redis://:hunter2@h", "--cluster-secret", "hunter2 hunter2 hunter2"]);
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let path = std::path::Path::new("/nonexistent/causeway.yaml");
    let problems = Settings::resolve(Options::default(), Some(path), &empty_environment).unwrap_err();
    assert!(problems.to_string().starts_with("/nonexistent/causeway.yaml: cannot be read: "), "{problems}");
}

#[test]
fn run_refuses_open_callbacks() {
    let refusals = defaults().refusals(Mode::Run);
    assert_eq!(refusals.len(), 1);
    assert!(
        refusals[0].contains("--callback-token") && refusals[0].contains("CAUSEWAY_CALLBACK_TOKEN"),
        "{refusals:?}"
    );
    let safe = Settings { callback_token: Some(Secret::new("t")), ..defaults() };
    assert_eq!(safe.refusals(Mode::Run), [""; 0]);
}

#[test]
fn run_refuses_an_open_admin_listener() {
    let open =
        Settings { callback_token: Some(Secret::new("t")), admin: "0.0.0.0:8081".parse().unwrap(), ..defaults() };
    let refusals = open.refusals(Mode::Run);
    assert!(refusals.len() == 1 && refusals[0].contains("--admin-token"), "{refusals:?}");
    let guarded = Settings { admin_token: Some(Secret::new("t")), ..open };
    assert_eq!(guarded.refusals(Mode::Run), [""; 0]);
}

#[test]
fn run_refuses_a_key_that_everyone_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let key = tempfile::NamedTempFile::new().unwrap();
    let settings = Settings {
        callback_token: Some(Secret::new("t")),
        tls: Some(Tls { cert: "c.pem".into(), key: key.path().to_owned() }),
        ..defaults()
    };
    for (mode, refused) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
        key.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        let refusals = settings.refusals(Mode::Run);
        assert_eq!(refusals.len(), refused, "{mode:o}");
        assert!(refusals.iter().all(|text| text.contains("chmod o-r") && text.contains("--tls-key")), "{refusals:?}");
    }
}

#[test]
fn dev_stays_on_loopback() {
    assert_eq!(defaults().refusals(Mode::Dev), [""; 0]);
    let open = Settings { listen: "0.0.0.0:8080".parse().unwrap(), ..defaults() };
    let refusals = open.refusals(Mode::Dev);
    assert!(refusals.len() == 1 && refusals[0].contains("--listen") && refusals[0].contains("127.0.0.1:8080"));
}

#[test]
fn connections_take_an_address_or_a_url() {
    let admin = |args: &[&str]| {
        let args = ["causeway", "connections"].iter().chain(args);
        let cli = Cli::try_parse_from(args).unwrap();
        let Command::Connections(connections) = cli.command else { panic!("{cli:?}") };
        connections.admin.url()
    };
    assert_eq!(admin(&["list"]), "http://127.0.0.1:8081");
    assert_eq!(admin(&["get", "x", "--admin", "10.0.0.1:9"]), "http://10.0.0.1:9");
    assert_eq!(admin(&["--admin", "https://gw/", "send", "x", "hello"]), "https://gw");
}

/// What the environment of a process says, for settings that come from nowhere else.
fn with_variables(args: &[&str], variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    let variables: std::collections::HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::resolve(parse(args), None, &move |name| variables.get(name).cloned())
}

#[test]
fn functions_are_called_as_the_environment_of_the_sdks_says() {
    let lambda = with_variables(&["--lambda-endpoint", "http://127.0.0.1:9001"], &[]).unwrap().lambda;
    assert_eq!(lambda.endpoint.unwrap(), "http://127.0.0.1:9001/");
    assert!(lambda.region.is_none() && lambda.credentials.environment.is_none());
    assert!(lambda.credentials.profile.credentials_file.is_none() && lambda.credentials.container.is_none());
    assert_eq!(lambda.credentials.instance.as_deref(), Some("http://169.254.169.254"));
    let lambda = with_variables(
        &[],
        &[
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", ""),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_PROFILE", "work"),
            ("HOME", "/h"),
            ("AWS_CONFIG_FILE", "/etc/aws"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
            ("AWS_EC2_METADATA_DISABLED", "TRUE"),
        ],
    );
    let lambda = lambda.unwrap().lambda;
    let credentials = lambda.credentials;
    let key = credentials.environment.unwrap();
    assert_eq!((key.access_key.as_str(), key.session_token.is_none(), lambda.endpoint), ("AKIA", true, None));
    assert_eq!(lambda.region.as_deref(), Some("eu-west-1"));
    let (profile, home) = (credentials.profile, std::path::Path::new("/h/.aws/credentials"));
    assert_eq!((profile.name.as_deref(), profile.credentials_file.as_deref()), (Some("work"), Some(home)));
    assert_eq!(profile.config_file.as_deref(), Some(std::path::Path::new("/etc/aws")));
    assert_eq!(credentials.container.unwrap().url, "http://169.254.170.2/v2/x");
    assert!(credentials.instance.is_none());
}

#[test]
fn what_cannot_call_a_function_is_said_without_a_secret() {
    for (args, variables, expected) in [
        (
            &["--lambda-endpoint", "http://h/path"][..],
            &[][..],
            "`lambda-endpoint` is `http://h/path`, expected a scheme",
        ),
        (&["--lambda-endpoint", "localhost:9001"], &[], "`lambda-endpoint` is `localhost:9001`"),
        (&["--lambda-endpoint", "http://a@h"], &[], "`lambda-endpoint` is"),
        (&[], &[("AWS_ACCESS_KEY_ID", "A")], "`AWS_ACCESS_KEY_ID` stands alone"),
        (&[], &[("AWS_SECRET_ACCESS_KEY", "hunter2")], "`AWS_SECRET_ACCESS_KEY` stands alone"),
        (&[], &[("AWS_REGION", "evil.example/")], "`AWS_REGION` is `evil.example/`, expected a region"),
    ] {
        let problems = with_variables(args, variables).unwrap_err().to_string();
        assert!(problems.contains(expected) && !problems.contains("hunter2"), "{problems}");
    }
}

const IAM: &str = "iam:
  account: '123456789012'
  region: eu-central-1
  hosts: [ws.example.com]
  users:
    ann:
      tags: {team: blue}
      access-keys:
        - {id: AKIAANN, secret: \"${env:ANN_SECRET}\"}
      policies:
        - Version: 2012-10-17
          Statement: {Effect: Allow, Action: '*', Resource: 'arn:aws:execute-api:*:*:*/${aws:username}'}
  roles:
    fn:
      sessions:
        - {name: s1, id: ASIAFN, secret: 0123456789abcdef, session-token: t, expires: 2030-01-31T12:00:00Z}
";

#[test]
fn identities_come_from_the_file_and_their_secrets_from_elsewhere() {
    let config = file(IAM);
    let variables = |name: &str| (name == "ANN_SECRET").then(|| "hunter2-hunter2-hunter2".to_owned());
    let settings = Settings::resolve(Options::default(), Some(config.path()), &variables).unwrap();
    let iam = &settings.iam;
    assert_eq!((iam.account.as_str(), iam.region.as_str()), ("123456789012", "eu-central-1"));
    assert_eq!(iam.hosts, ["ws.example.com"]);
    let [ann, role] = iam.identities.as_slice() else { panic!("{iam:?}") };
    assert_eq!((ann.name.as_str(), ann.policies.len(), ann.tags["team"].as_str()), ("ann", 1, "blue"));
    assert!(ann.keys[0].secret.matches(b"hunter2-hunter2-hunter2"));
    let session = role.keys[0].session.as_ref().unwrap();
    assert_eq!((role.is_role, session.name.as_str()), (true, "s1"));
    assert_eq!(session.expires.unwrap().to_iso(), "2030-01-31T12:00:00.000Z");
    let text = format!("{settings:?}");
    assert!(!text.contains("hunter2") && !text.contains("0123456789abcdef"), "{text}");
    assert_eq!(settings.refusals(Mode::Run), [""; 0], "signatures guard the callbacks");
    let nobody = resolve(&[], "iam: {users: {ann: {}}}\n").unwrap();
    assert_eq!(nobody.refusals(Mode::Run).len(), 1, "a user without a key guards nothing");
}

#[test]
fn what_is_wrong_with_identities_is_told_with_its_place() {
    assert_eq!(
        problems(
            &[],
            "iam:\n  account: 12\n  users:\n    ann:\n      access-keys: [{secret: 0123456789abcdef}]\n    bob: {acess-keys: []}\n"
        ),
        [
            "2:12: `account` is 12, expected 12 digits, in quotes",
            "5:21: `id` is missing, expected 4 to 128 letters, digits and `_`",
            "6:11: unknown key `acess-keys`, expected `access-keys`?",
        ]
    );
    let text = "iam:
  users:
    ann:
      access-keys:
        - {id: AKIA, secret: short}
      policies:
        - Version: 2012-10-17
          Statement:
            - Effect: Allow
              Action: [a:b, Invoke]
              Resource: '*'
  roles:
    fn:
      sessions:
        - {name: s1, id: AKIA, secret: 0123456789abcdef, session-token: '', expires: soon}
";
    assert_eq!(
        problems(&[], text),
        [
            "5:30: `secret` is too short, expected at least 16 characters",
            "10:23: the policy.Statement[0].Action has `Invoke`, expected actions such as `execute-api:Invoke`",
            "15:26: access key `AKIA` is there already, expected another id",
            "15:73: `session-token` is empty, expected the token that goes along with the key",
            "15:86: `expires` is no time, expected one such as `2030-01-31T12:00:00Z`",
        ]
    );
}
