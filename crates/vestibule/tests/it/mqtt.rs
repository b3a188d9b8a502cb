//! The listener for applications, with clients none of us wrote: mosquitto_pub and mosquitto_sub.

use std::process::Command;

use crate::support::{Done, Listener, Platform, Program, until};

/// A Mosquitto client with this password.
pub fn client(program: &str, platform: &Platform, password: &str, arguments: &[&str]) -> Program {
    let address = platform.address(Listener::Mqtt);
    // Into a pipe it would say things only once it ends.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-V", "311", "-u", "application", "-P", password]).args(arguments);
    Program::of(command)
}

fn publish(platform: &Platform, arguments: &[&str]) -> Done {
    client("mosquitto_pub", platform, &platform.token(), arguments).finish()
}

/// A subscriber that ends after one message, once its subscription is in force.
fn subscriber(platform: &Platform, arguments: &[&str]) -> Program {
    let arguments = [&["-d", "-C", "1", "-W", "20"], arguments].concat();
    let mut program = client("mosquitto_sub", platform, &platform.token(), &arguments);
    program.line_with("Subscribed (mid:");
    program
}

#[test]
fn a_message_makes_the_round_from_one_application_to_another() {
    let platform = Platform::start();
    for qos in ["0", "1", "2"] {
        let subscriber = subscriber(&platform, &["-t", "hall/+/door", "-q", qos]);
        publish(&platform, &["-t", "hall/7/door", "-q", qos, "-m", "open ä"]).expect(0);
        let done = subscriber.finish().expect(0);
        assert!(done.stdout.lines().any(|line| line == "open ä"), "QoS {qos}: {done:?}");
    }
}

#[test]
fn a_wrong_token_is_refused() {
    let platform = Platform::start();
    let wrong = format!("vst_{}", "0".repeat(64));
    for password in [&*wrong, "", "test"] {
        let done = client("mosquitto_pub", &platform, password, &["-t", "hall/door", "-m", "x"]).finish();
        assert_eq!(done.code, Some(5), "not authorised: {done:?}");
        assert!(done.stderr.contains("not authorised"), "{done:?}");
    }
    for (reason, times) in [("bad_token", 2.0), ("bad_login", 1.0)] {
        let ended = [("listener", "mqtt"), ("reason", reason)];
        assert_eq!(platform.metric("vestibule_connections_ended_total", &ended), times, "{reason}");
    }
}

#[test]
fn topics_of_the_platform_are_neither_heard_nor_spoken_by_applications() {
    let platform = Platform::start();
    let reserved = ["/iot/SN1/#", "iot/SN1/global", "/oneM2M/req/#", "$SYS/#", "/v1/events"];
    for filter in reserved {
        let done = client("mosquitto_sub", &platform, &platform.token(), &["-t", filter, "-W", "20"]).finish();
        assert!(done.stderr.contains("All subscription requests were denied"), "{filter}: {done:?}");
    }
    // Who hears everything hears nothing that was said there.
    let subscriber = subscriber(&platform, &["-t", "#", "-t", "+/+/#", "-q", "1"]);
    let topics = ["/iot/SN1/global/0-Lamp/model/event/report/Alarm/Smoke", "iot/x", "/oneM2M/req/a/b/json", "/v1/x"];
    for topic in topics {
        publish(&platform, &["-t", topic, "-q", "1", "-m", "forged"]).expect(0);
    }
    publish(&platform, &["-t", "hall/door", "-q", "1", "-m", "allowed"]).expect(0);
    let done = subscriber.finish().expect(0);
    assert!(done.stdout.lines().any(|line| line == "allowed"), "{done:?}");
    assert!(!done.stdout.contains("forged"), "{done:?}");
    let denied = [("listener", "mqtt"), ("reason", "reserved_topic")];
    assert_eq!(platform.metric("vestibule_publishes_denied_total", &denied), topics.len() as f64);
    assert_eq!(platform.events(None), [] as [serde_json::Value; 0]);
}

#[test]
fn a_will_on_a_topic_of_the_platform_is_refused() {
    let platform = Platform::start();
    let will = ["--will-topic", "/iot/SN1/x", "--will-payload", "forged", "-t", "hall/door", "-m", "x"];
    let done = publish(&platform, &will);
    assert_eq!(done.code, Some(5), "not authorised: {done:?}");
}

#[test]
fn a_durable_session_is_refused_because_nothing_would_be_kept() {
    let platform = Platform::start();
    let done = client("mosquitto_sub", &platform, &platform.token(), &["-t", "hall/door", "-c", "-i", "hall"]).finish();
    assert_eq!(done.code, Some(3), "server unavailable: {done:?}");
}

#[test]
fn an_application_that_is_killed_leaves_its_will() {
    let platform = Platform::start();
    let heir = subscriber(&platform, &["-t", "hall/will", "-q", "1"]);
    let will = ["--will-topic", "hall/will", "--will-payload", "gone", "--will-qos", "1", "-t", "hall/door"];
    let mut dying = subscriber(&platform, &will);
    dying.kill();
    let done = heir.finish().expect(0);
    assert!(done.stdout.lines().any(|line| line == "gone"), "{done:?}");
}

#[test]
fn a_token_lets_an_application_in_as_its_role_says_and_until_it_is_removed() {
    let platform = Platform::start();
    let make = |arguments: &[&str]| {
        let made = platform.cli(&[&["token", "add", "--json"], arguments].concat()).expect(0).json();
        made["token"].as_str().expect("a secret").to_owned()
    };
    for listener in [make(&["v", "--role", "viewer"]), make(&["b", "--role", "admin", "--subtree", "/hall"])] {
        // MQTT 3.1.1 has no other answer to a message that may not be said than to drop it.
        client("mosquitto_pub", &platform, &listener, &["-q", "1", "-t", "hall/door", "-m", "x"]).finish().expect(0);
        let done = client("mosquitto_sub", &platform, &listener, &["-t", "hall/door", "-W", "20"]).finish();
        assert!(done.stderr.contains("All subscription requests were denied"), "{done:?}");
    }
    let denied = [("listener", "mqtt"), ("reason", "no_permission")];
    assert_eq!(platform.metric("vestibule_publishes_denied_total", &denied), 2.0);
    let operator = make(&["o", "--role", "operator"]);
    let mut listening = client("mosquitto_sub", &platform, &operator, &["-d", "-t", "hall/door", "-W", "20"]);
    listening.line_with("Subscribed (mid:");
    platform.cli(&["token", "remove", "o"]).expect(0);
    let ended = [("listener", "mqtt"), ("reason", "rights_ended")];
    until("its connection ends", || {
        (platform.metric("vestibule_connections_ended_total", &ended) == 1.0).then_some(())
    });
}
