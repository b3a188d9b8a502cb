use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use figment::Figment;
use figment::providers::Serialized;

use super::keys::Keys;
use super::*;

const REFERENCE: &str = include_str!("../../../../vestibule.toml");

fn nothing() -> Sources {
    Sources { file: ConfigFile::IfPresent(PathBuf::from("/no/such/vestibule.toml")), ..Sources::default() }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// Loads a file of the given text (under the other sources) and returns the outcome with the path cut to `FILE`.
fn with_file(text: &str, other: Sources) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("vestibule.toml");
    fs::write(&path, text).expect("written");
    let shown = path.display().to_string();
    load(&Sources { file: ConfigFile::Required(path), ..other })
        .map_err(|problems| problems.0.iter().map(|problem| problem.to_string().replace(&shown, "FILE")).collect())
}

fn without_file(sources: &Sources) -> Vec<String> {
    load(sources).expect_err("problems").0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_has_to_be_set() {
    let config = load(&nothing()).expect("defaults are valid");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data, PathBuf::from("./data"));
    assert_eq!(config.token_file(), PathBuf::from("./data/token"));
    assert!(!config.lbs.g0, "the oldest generation is served on request only");
    assert!(config.lbs.legacy_listen.is_none() && config.das.legacy_listen.is_none() && config.mqtt.listen.is_none());
    assert_eq!(config.store.retention, Duration::from_secs(2_592_000));
    assert_eq!(config.store.max_bytes, Capacity::Percent(80));
}

#[test]
fn each_layer_overrides_the_one_below() {
    let file = "data = \"from-file\"\n[http]\nlisten = \"127.0.0.1:1\"\n[store]\nretention = \"1d\"\nmax_bytes = 4096\n[log]\nlevel = \"warn\"\n";
    let config = with_file(
        file,
        Sources {
            environment: environment(&[
                ("VESTIBULE_HTTP__LISTEN", "127.0.0.1:2"),
                ("VESTIBULE_STORE__RETENTION", "2d"),
                ("VESTIBULE_LOG__JSON", "true"),
            ]),
            set: vec!["http.listen=127.0.0.1:3".to_owned(), "registry.max_devices=7".to_owned()],
            data: Some(PathBuf::from("2024")),
            ..nothing()
        },
    )
    .expect("valid");
    assert_eq!(config.http.listen.port(), 3, "a flag over the environment over the file");
    assert_eq!(config.store.retention, Duration::from_secs(172_800), "the environment over the file");
    assert_eq!(config.log.level, "warn", "the file over the default");
    assert_eq!(config.store.max_bytes, Capacity::Bytes(4_096));
    assert!(config.log.json);
    assert_eq!(config.registry.max_devices, 7);
    assert_eq!(config.data, PathBuf::from("2024"), "a path of digits is a path");
}

#[test]
fn a_layer_takes_back_what_the_one_below_has_set() {
    let file = "[lbs]\nlegacy_listen = \"127.0.0.1:8666\"\n[das]\nadvertise = \"hall.example\"\n[store]\nurl = \"postgres://u:p@h/d\"\n";
    let set = ["lbs.legacy_listen=off", "das.advertise=auto", "store.url=sqlite"].map(str::to_owned).to_vec();
    let config = with_file(file, Sources { set, ..nothing() }).expect("valid");
    assert!(config.lbs.legacy_listen.is_none() && config.das.advertise.is_none() && config.store.url.is_none());
}

#[test]
fn the_last_set_of_a_key_counts() {
    let set = ["http.listen=127.0.0.1:1", "http.listen=127.0.0.1:2"].map(str::to_owned).to_vec();
    assert_eq!(load(&Sources { set, ..nothing() }).expect("valid").http.listen.port(), 2);
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_a_suggestion() {
    let problems = with_file("# a comment\n\n[http]\nlisen = \"127.0.0.1:1\"\n", nothing()).expect_err("unknown");
    assert_eq!(problems, ["FILE:4: http.lisen: unknown key; did you mean `http.listen`?"]);

    let sources = Sources { environment: environment(&[("VESTIBULE_HTTP_LISTEN", "127.0.0.1:1")]), ..nothing() };
    assert_eq!(
        without_file(&sources),
        ["environment VESTIBULE_HTTP_LISTEN: http_listen: unknown key; did you mean `VESTIBULE_HTTP__LISTEN`?"]
    );

    let sources = Sources { set: vec!["store.retension=1d".to_owned()], ..nothing() };
    assert_eq!(without_file(&sources), ["--set store.retension: unknown key; did you mean `store.retention`?"]);
}

#[test]
fn a_key_like_no_other_points_to_the_reference() {
    let sources = Sources { set: vec!["weather=fine".to_owned()], ..nothing() };
    assert_eq!(without_file(&sources), ["--set weather: unknown key; the shipped vestibule.toml lists all of them"]);
}

#[test]
fn a_quoted_dotted_name_is_no_key() {
    let problems = with_file("\"http.listen\" = \"127.0.0.1:1\"\n", nothing()).expect_err("unknown");
    assert_eq!(problems, ["FILE:1: http.listen: unknown key; did you mean `http.listen`?"]);
}

#[test]
fn all_problems_of_all_layers_are_told_at_once() {
    let file = "colour = \"red\"\n[http]\nlisten = \"here\"\ninsecure = \"yes\"\n[das]\nmax_connections = -1\n[store]\nretention = \"soon\"\n";
    let problems = with_file(
        file,
        Sources {
            environment: environment(&[("VESTIBULE_MQTT__LISTEN", "1883")]),
            set: vec!["log.level=loud".to_owned(), "nonsense".to_owned()],
            ..nothing()
        },
    )
    .expect_err("problems");
    for start in [
        "FILE:1: colour: unknown key",
        "FILE:3: http.listen: `here` is no address and port",
        "FILE:4: http.insecure: expected true or false",
        "FILE:6: das.max_connections: ",
        "FILE:8: store.retention: `soon` is no length of time",
        "environment VESTIBULE_MQTT__LISTEN: mqtt.listen: `1883` is no address and port",
        "--set log.level: `loud` is no level",
        "--set nonsense: expected key=value",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}\nis not in {problems:#?}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
}

#[test]
fn a_value_overridden_is_blamed_on_the_layer_that_won() {
    let problems = with_file(
        "[http]\nlisten = \"127.0.0.1:1\"\n",
        Sources { environment: environment(&[("VESTIBULE_HTTP__LISTEN", "nowhere")]), ..nothing() },
    )
    .expect_err("problems");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("environment VESTIBULE_HTTP__LISTEN: http.listen: `nowhere`"), "{problems:?}");
}

#[test]
fn numbers_of_the_wrong_kind_say_what_is_expected() {
    let problems = with_file("[registry]\nmax_devices = \"many\"\n", nothing()).expect_err("problems");
    assert_eq!(problems, ["FILE:2: registry.max_devices: expected a whole number, found string \"many\""]);
}

#[test]
fn sections_and_values_do_not_stand_for_each_other() {
    let problems = with_file("http = 5\n[data]\nx = 1\n", nothing()).expect_err("problems");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("FILE:1: http: a section, not a value; its keys are insecure, listen"),
        "{problems:?}"
    );
    assert_eq!(problems[1], "FILE:2: data: expected a value, found a table");

    let problems = without_file(&Sources { set: vec!["mqtt=off".to_owned()], ..nothing() });
    assert!(problems[0].starts_with("--set mqtt: a section, not a value"), "{problems:?}");
}

#[test]
fn broken_toml_names_its_line() {
    let problems = with_file("data = \"x\"\n[http\n", nothing()).expect_err("problems");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("FILE:2: not TOML: "), "{problems:?}");
}

#[test]
fn a_named_file_must_be_there() {
    let sources = Sources { file: ConfigFile::Required(PathBuf::from("/no/such/file.toml")), ..Sources::default() };
    let problems = without_file(&sources);
    assert!(problems[0].starts_with("/no/such/file.toml: cannot be read: "), "{problems:?}");
}

#[test]
fn plain_http_stays_on_this_machine_unless_told_otherwise() {
    for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        let problems = without_file(&Sources { set: vec![format!("http.listen={listen}")], ..nothing() });
        assert!(problems[0].starts_with("--set http.listen: "), "{problems:?}");
        assert!(problems[0].contains("http.insecure = true"), "{problems:?}");
        let set = vec![format!("http.listen={listen}"), "http.insecure=true".to_owned()];
        load(&Sources { set, ..nothing() }).expect("permitted");
    }
    for listen in ["127.0.0.1:0", "[::1]:0", "127.8.0.1:0", "[::ffff:127.0.0.1]:0"] {
        load(&Sources { set: vec![format!("http.listen={listen}")], ..nothing() }).expect(listen);
    }
}

#[test]
fn limits_have_floors() {
    let problems = without_file(&Sources { set: vec!["das.max_connections=0".to_owned()], ..nothing() });
    assert_eq!(problems, ["--set das.max_connections: must be at least 1; it is 0"]);
    let problems = without_file(&Sources { set: vec!["das.max_queue_bytes=4KiB".to_owned()], ..nothing() });
    assert_eq!(
        problems,
        ["--set das.max_queue_bytes: must be at least 131072 bytes, the value of das.max_frame_bytes; it is 4096"]
    );
}

#[test]
fn an_upload_ends_before_its_ticket() {
    load(&Sources { set: vec!["media.upload_ttl=24h".to_owned()], ..nothing() }).expect("a day");
    let problems = without_file(&Sources { set: vec!["media.upload_ttl=25h".to_owned()], ..nothing() });
    assert_eq!(problems, ["--set media.upload_ttl: must be at most 86400000 ms, a day; it is 90000000"]);
}

#[test]
fn a_rule_does_not_judge_a_value_that_is_already_wrong() {
    let set = ["http.listen=0.0.0.0:1", "http.insecure=perhaps"].map(str::to_owned).to_vec();
    let problems = without_file(&Sources { set, ..nothing() });
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("--set http.insecure"), "{problems:?}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let sources = Sources {
        environment: environment(&[
            ("VESTIBULE_URL", "http://127.0.0.1:1"),
            ("VESTIBULE_TOKEN", "secret"),
            ("VESTIBULE_TOKEN_FILE", "x"),
            ("VESTIBULE_TEST_PYTHON", "x"),
            ("VESTIBULE_SERVICE_HOST", "10.0.0.1"),
            ("VESTIBULE_SERVICE_PORT_HTTP", "8080"),
            ("VESTIBULE_PORT", "tcp://10.0.0.1:8080"),
            ("VESTIBULE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("HOME", "/root"),
        ]),
        ..nothing()
    };
    load(&sources).expect("none of these is a key");
}

#[test]
fn a_database_password_is_never_shown() {
    let url = "store.url=postgres://user:hunter2@host/db".to_owned();
    let config = load(&Sources { set: vec![url], ..nothing() }).expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.store.url.as_ref().map(StoreUrl::expose), Some("postgres://user:hunter2@host/db"));
    let problems =
        without_file(&Sources { set: vec!["store.url=mysql://user:hunter2@host/db".to_owned()], ..nothing() });
    assert!(problems[0].starts_with("--set store.url: expected \"sqlite\" or an address"), "{problems:?}");
    assert!(!problems[0].contains("hunter2"));
}

#[test]
fn a_bucket_is_described_whole_and_its_secret_is_never_shown() {
    let told = |lines: &str| with_file(&format!("[media.s3]\nbucket = \"pictures\"\n{lines}"), nothing());
    let config = told("access_key_id = \"AKIA\"\nsecret_access_key = \"hunter2\"").expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    let bucket = config.media.s3.read().expect("nothing is read").expect("a bucket");
    assert!(!format!("{bucket:?} {:?}", bucket.credentials).contains("hunter2"));
    assert_eq!(bucket.credentials.map(|key| key.secret_access_key.to_string()).as_deref(), Some("hunter2"));
    assert!(told("").is_ok(), "by the credentials of the machine");
    for (lines, key) in [
        ("access_key_id = \"AKIA\"", "media.s3.access_key_id"),
        ("secret_access_key = \"hunter2\"", "media.s3.access_key_id"),
        ("secret_access_key = 4711", "media.s3.secret_access_key"),
        (
            "access_key_id = \"AKIA\"\nsecret_access_key = \"hunter2\"\nsecret_access_key_file = \"key\"",
            "media.s3.secret_access_key_file",
        ),
        ("endpoint = \"http://minio.example\"", "media.s3.endpoint"),
        ("endpoint = \"minio.example\"", "media.s3.endpoint"),
        ("bukcet = \"x\"", "media.s3.bukcet"),
    ] {
        let problems = told(lines).expect_err(lines);
        assert!(problems[0].contains(&format!("{key}:")), "{lines}: {problems:?}");
        assert!(!problems[0].contains("hunter2") && !problems[0].contains("4711"), "{problems:?}");
    }
    let missing = told("access_key_id = \"AKIA\"\nsecret_access_key_file = \"/no/such/key\"").expect("valid");
    let error = missing.media.s3.read().expect_err("no such file");
    assert!(format!("{error:#}").starts_with("media.s3.secret_access_key_file: /no/such/key: "), "{error:#}");
}

/// The reference with every key switched on: `#key = …` is a key, `# words` is a comment.
fn switched_on() -> String {
    REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_shipped_file_holds_every_key_with_its_default() {
    let path = PathBuf::from("vestibule.toml");
    let keys = Keys::new();
    let mut problems = Vec::new();
    let settings = file::settings(&path, &switched_on(), &keys, &mut problems);
    assert_eq!(problems, []);
    let written: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    let missing: Vec<&str> = keys.iter().filter(|key| !written.contains(key)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "keys the shipped file does not show");

    for setting in &settings {
        let config: Config = Figment::from(Serialized::defaults(Config::default()))
            .merge(Serialized::default(&setting.key, &setting.value))
            .extract()
            .expect("the value fits");
        let shown = Figment::from(Serialized::defaults(config)).find_value(&setting.key).expect("the key");
        let default = Figment::from(Serialized::defaults(Config::default())).find_value(&setting.key).expect("the key");
        assert_eq!(shown, default, "{} does not show its default", setting.key);
    }
}

#[test]
fn the_shipped_file_explains_every_key_and_changes_nothing_as_it_is() {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let mut explained = 0;
    for (at, line) in lines.iter().enumerate() {
        let is_key = line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        let is_section = line.starts_with('[');
        if is_key || is_section {
            assert!(at > 0 && lines[at - 1].starts_with("# "), "line {}: `{line}` has no sentence above it", at + 1);
        } else {
            assert!(
                line.is_empty() || *line == "#" || line.starts_with("# "),
                "line {}: `{line}` is neither key nor comment",
                at + 1
            );
        }
        explained += usize::from(is_key);
    }
    assert_eq!(explained, Keys::new().iter().count());
    let mut problems = Vec::new();
    assert!(file::settings(&PathBuf::from("vestibule.toml"), REFERENCE, &Keys::new(), &mut problems).is_empty());
    assert_eq!(problems, []);
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[test]
fn the_envelope_key_is_from_one_place() {
    let variable = || Sources { environment: environment(&[("VESTIBULE_ENVELOPE_KEY", KEY)]), ..nothing() };
    let config = load(&variable()).expect("valid");
    assert_eq!(config.store.key_from(), KeyFrom::Environment);
    assert!(!format!("{config:?}").contains(&KEY[..8]), "it prints itself");
    assert!(config.store.key().expect("a key").is_some());
    assert_eq!(load(&nothing()).expect("valid").store.key_from(), KeyFrom::Data);
    let file = "[store]\nenvelope_key_file = \"/no/such/key\"";
    let config = with_file(file, nothing()).expect("valid");
    assert_eq!(config.store.key_from(), KeyFrom::File);
    let error = config.store.key().err().expect("no such file");
    assert!(format!("{error:#}").starts_with("store.envelope_key_file: cannot read /no/such/key"), "{error:#}");
    let command = "[store]\nenvelope_key_command = [\"echo\", \"no key\"]";
    let config = with_file(command, nothing()).expect("valid");
    assert_eq!(config.store.key_from(), KeyFrom::Command);
    let error = format!("{:#}", config.store.key().err().expect("no key"));
    assert!(error.starts_with("store.envelope_key_command: ") && error.contains("holds no key"), "{error}");

    // Two of them are told by their names, at the place of one.
    let problems = with_file(file, variable()).expect_err("two keys");
    assert!(problems[0].contains("VESTIBULE_ENVELOPE_KEY and store.envelope_key_file are both set"), "{problems:?}");
    let problems = with_file(command, variable()).expect_err("two keys");
    assert!(problems[0].contains("VESTIBULE_ENVELOPE_KEY and store.envelope_key_command are both set"), "{problems:?}");
    let both = format!("{file}\nenvelope_key_command = [\"true\"]");
    let problems = with_file(&both, nothing()).expect_err("two keys");
    assert!(problems[0].starts_with("FILE:3: ") && problems[0].contains("are both set"), "{problems:?}");
}

#[test]
fn what_is_no_envelope_key_or_no_command_is_told_without_showing_it() {
    let broken = Sources { environment: environment(&[("VESTIBULE_ENVELOPE_KEY", &KEY[1..])]), ..nothing() };
    let problems = without_file(&broken);
    assert!(problems[0].contains("VESTIBULE_ENVELOPE_KEY holds no key"), "{problems:?}");
    assert!(!problems[0].contains(&KEY[1..9]), "{problems:?}");
    let problems = with_file("[store]\nenvelope_key_command = \"cat key\"", nothing()).expect_err("no list");
    assert!(problems[0].contains("expected a list such as"), "{problems:?}");
    let problems = with_file("[store]\nretention = [\"30d\"]", nothing()).expect_err("a list");
    assert!(problems[0].contains("found a list"), "{problems:?}");
    let set = Sources { set: vec!["store.envelope_key_command=[\"cat\", \"a b\"]".to_owned()], ..nothing() };
    assert_eq!(load(&set).expect("valid").store.envelope_key_command, ["cat", "a b"]);
    // No key of the configuration, which whoever may read the file or the list of processes sees.
    let problems = with_file(&format!("[store]\nenvelope_key = \"{KEY}\""), nothing()).expect_err("no key");
    assert!(problems[0].contains("unknown key") && !problems[0].contains(&KEY[..8]), "{problems:?}");
}

#[test]
fn the_copy_of_the_key_that_came_with_the_environment_is_wiped() {
    let mut sources =
        Sources { environment: environment(&[("VESTIBULE_ENVELOPE_KEY", KEY), ("HOME", "/root")]), ..nothing() };
    let shown = format!("{sources:?}");
    assert!(shown.contains("VESTIBULE_ENVELOPE_KEY") && !shown.contains(&KEY[..8]), "{shown}");
    sources.wipe();
    assert_eq!(sources.environment, environment(&[("VESTIBULE_ENVELOPE_KEY", ""), ("HOME", "/root")]));
}
