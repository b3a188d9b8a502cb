//! Every error is a problem document.

use crate::site::Site;

#[test]
fn what_is_not_there_is_said_so() {
    let site = Site::new();
    for path in
        ["/nothing", "/v1", "/v1/devices/", "/v1/devices/a/b/c", "/problems/unknown", "/problems/..", "/../etc/passwd"]
    {
        site.get(path).problem(404, "unknown-route");
    }
    let explained = site.request("GET", "/problems/unknown-route", "", "").json();
    assert_eq!((&explained["status"], &explained["type"]), (&404.into(), &"/problems/unknown-route".into()));
    for (method, path, allow) in [
        ("PUT", "/v1/devices", "POST"),
        ("PATCH", "/v1/events", "GET"),
        ("POST", "/healthz", "GET"),
        ("BREW", "/v1/devices/a", "DELETE"),
    ] {
        let answer = site.request(method, path, &site.bearer(), "");
        answer.problem(405, "method-not-allowed");
        assert!(answer.header("allow").is_some_and(|methods| methods.contains(allow)), "{}", answer.head);
    }
}

#[test]
fn a_body_must_be_json_and_say_so() {
    let site = Site::new();
    let body = r#"{"serial":"a","code":"A"}"#;
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/x-www-form-urlencoded\r\n"] {
        let answer = site.request("POST", "/v1/devices", &format!("{}{kind}", site.bearer()), body);
        answer.problem(415, "unsupported-media-type");
    }
    for broken in ["{", "", "{\"serial\":}", "\u{1}", "{} {}"] {
        site.post("/v1/devices", broken).problem(400, "malformed-json");
    }
    for other in ["[]", "7", "\"text\"", "null"] {
        site.post("/v1/devices", other).problem(422, "wrong-type");
    }
    site.post("/v1/devices", &"[".repeat(100_000)).problem(422, "wrong-type");
    let deep = format!(r#"{{"serial":{}"#, "[".repeat(100_000));
    site.post("/v1/devices", &deep).problem(400, "malformed-json");
}

#[test]
fn a_query_is_checked_like_a_body() {
    let site = Site::new();
    for (path, status, kind, field) in [
        ("/v1/devices?colour=1", 422, "unknown-field", "colour"),
        ("/v1/devices?limit=0", 422, "invalid-value", "limit"),
        ("/v1/devices?limit=1001", 422, "invalid-value", "limit"),
        ("/v1/devices?limit=ten", 422, "wrong-type", "limit"),
        ("/v1/devices?limit=1&limit=2", 422, "duplicate-field", "limit"),
        ("/v1/devices?cursor=x", 422, "invalid-value", "cursor"),
        ("/v1/devices/a?x=1", 404, "unknown-device", ""),
        ("/v1/events?cursor=-1", 422, "invalid-value", "cursor"),
        ("/v1/events?from=yesterday", 422, "invalid-value", "from"),
        ("/v1/events?to=", 422, "invalid-value", "to"),
        ("/v1/events?name=Smoke", 422, "unknown-field", "name"),
        ("/v1/events?device=nobody", 404, "unknown-device", ""),
        ("/v1/events/stream?after=x", 422, "invalid-value", "after"),
        ("/v1/events/stream?limit=1", 422, "unknown-field", "limit"),
        ("/v1/events/stream?device=nobody", 404, "unknown-device", ""),
        ("/metrics?x=1", 422, "unknown-field", "x"),
    ] {
        let problem = site.get(path).problem(status, kind);
        assert_eq!(problem.get("field").and_then(|field| field.as_str()).unwrap_or_default(), field, "{path}");
    }
    let headers = format!("{}last-event-id: x\r\n", site.bearer());
    let problem = site.request("GET", "/v1/events/stream", &headers, "").problem(422, "invalid-value");
    assert_eq!(problem["field"], "Last-Event-ID");
}

#[test]
fn what_hyper_refuses_by_itself_is_a_problem_too() {
    let site = Site::new();
    for garbage in [
        "GARBAGE\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        site.raw(garbage.as_bytes()).problem(400, "malformed-request");
    }
    let wide = format!("x-wide: {}\r\n", "a".repeat(33 * 1024));
    site.request("GET", "/healthz", &wide, "").problem(431, "head-too-large");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    site.request("GET", "/healthz", &many, "").problem(431, "head-too-large");
    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}", "a".repeat(200 * 1024));
    site.raw(endless.as_bytes()).problem(431, "head-too-large");
    // A good request first on the same connection, a bad one behind it.
    let two = site.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGARBAGE\r\n\r\n");
    assert_eq!(two.status, 200);
    assert!(two.body.contains("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json"), "{}", two.body);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_client_hears_it() {
    let site = Site::new();
    let body = format!(r#"{{"serial":"{}","code":"A"}}"#, "a".repeat(3 * 1024 * 1024));
    site.post("/v1/devices", &body).problem(413, "body-too-large");
    let fits = format!(r#"{{"serial":"{}","code":"A"}}"#, "a".repeat(1024 * 1024 - 64));
    site.post("/v1/devices", &fits).problem(422, "invalid-value");
}

#[test]
fn only_allowed_hosts_are_answered() {
    let allowed_hosts = vec!["vestibule.example".to_owned()];
    let site = Site::with(vestibule_api::ApiConfig { allowed_hosts, ..Default::default() });
    site.get("/v1/devices").problem(421, "wrong-host");
    let answer = site.raw(b"GET /healthz HTTP/1.1\r\nhost: vestibule.example:80\r\nconnection: close\r\n\r\n");
    assert_eq!(answer.status, 200);
}
