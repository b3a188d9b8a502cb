//! Users and their sessions over HTTP; how often a token may be used.

use serde_json::{Value, json};
use vestibule_api::ApiConfig;

use crate::site::{Answer, Site};

const PASSWORD: &str = "correct horse";

fn with(site: &Site, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    site.request(method, path, &headers, &if body.is_null() { String::new() } else { body.to_string() })
}

/// Somebody logs in, without a token.
fn log_in(site: &Site, name: &str, password: &str) -> Answer {
    let body = json!({"name": name, "password": password}).to_string();
    site.request("POST", "/v1/sessions", "content-type: application/json\r\n", &body)
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_user_is_added_logs_in_and_out_and_is_removed() {
    let site = Site::new();
    let new = json!({"name": "anna", "password": PASSWORD, "role": "operator", "subtree": "/plant-1"});
    let added = site.post("/v1/users", &new.to_string());
    assert_eq!(added.status, 201, "{}", added.body);
    let expected = json!({
        "id": added.json()["id"], "name": "anna", "role": "operator", "subtree": "/plant-1",
        "created": "2026-01-01T00:00:00.000Z", "created_by": "administrator", "last_used": null,
    });
    assert_eq!(added.json(), expected);
    assert!(!site.get("/v1/users").body.contains("argon2"));
    let session = log_in(&site, "anna", PASSWORD);
    let anna = token(&session);
    let expected = json!({
        "token": anna, "name": "anna", "role": "operator", "subtree": "/plant-1", "expires": "2026-01-01T12:00:00.000Z",
    });
    assert_eq!(session.json(), expected);
    let who = with(&site, &anna, "GET", "/v1/sessions/current", &Value::Null).json();
    assert_eq!((&who["name"], &who["expires"]), (&json!("anna"), &json!("2026-01-01T12:00:00.000Z")));
    assert_eq!(site.get("/v1/sessions/current").json()["name"], "administrator");
    with(&site, &anna, "GET", "/v1/users", &Value::Null).problem(403, "forbidden");
    assert_eq!(with(&site, &anna, "DELETE", "/v1/sessions/current", &Value::Null).status, 204);
    with(&site, &anna, "GET", "/v1/sessions/current", &Value::Null).problem(401, "unauthenticated");
    site.request("DELETE", "/v1/sessions/current", &site.bearer(), "").problem(404, "unknown-session");
    assert_eq!(site.request("DELETE", "/v1/users/anna", &site.bearer(), "").status, 204);
    site.request("DELETE", "/v1/users/anna", &site.bearer(), "").problem(404, "unknown-user");
    log_in(&site, "anna", PASSWORD).problem(401, "login-refused");
    let actions: Vec<_> = site.get("/v1/audit").json()["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            format!("{} {}", row["actor"].as_str().unwrap_or_default(), row["action"].as_str().unwrap_or_default())
        })
        .collect();
    // What was denied is written down beside the answer, at any time.
    let actions: Vec<_> = actions.iter().filter(|action| !action.ends_with("access.denied")).collect();
    let expected = ["administrator user.remove", "anna session.remove", "anna session.add", "administrator user.add"];
    assert_eq!(actions, expected);
}

#[test]
fn passwords_are_changed_by_their_owners_and_by_administrators() {
    let site = Site::new();
    let new = json!({"name": "anna", "password": PASSWORD, "role": "viewer"}).to_string();
    assert_eq!(site.post("/v1/users", &new).status, 201);
    site.post("/v1/users", &new).problem(409, "name-taken");
    let short = json!({"name": "otto", "password": "ninechars", "role": "viewer"}).to_string();
    assert_eq!(site.post("/v1/users", &short).problem(422, "invalid-value")["field"], "password");
    let (own, other) = (token(&log_in(&site, "anna", PASSWORD)), token(&log_in(&site, "anna", PASSWORD)));
    let path = "/v1/sessions/current/password";
    let change = |current: &str| json!({"current": current, "password": "another password"});
    with(&site, &own, "PUT", path, &change("wrong")).problem(401, "login-refused");
    with(&site, &site.token, "PUT", path, &change(PASSWORD)).problem(404, "unknown-session");
    assert_eq!(with(&site, &own, "PUT", path, &change(PASSWORD)).status, 204);
    assert_eq!(with(&site, &own, "GET", "/v1/devices", &Value::Null).status, 200);
    with(&site, &other, "GET", "/v1/devices", &Value::Null).problem(401, "unauthenticated");
    let set = json!({"password": "a third password"});
    assert_eq!(with(&site, &site.token, "PUT", "/v1/users/anna/password", &set).status, 204);
    with(&site, &own, "GET", "/v1/devices", &Value::Null).problem(401, "unauthenticated");
    with(&site, &site.token, "PUT", "/v1/users/otto/password", &set).problem(404, "unknown-user");
    token(&log_in(&site, "anna", "a third password"));
}

#[test]
fn who_tries_passwords_is_told_to_wait() {
    let site = Site::new();
    let answers: Vec<_> = (0..11).map(|_| log_in(&site, "nobody", "wrong password")).collect();
    for answer in &answers[..10] {
        answer.problem(401, "login-refused");
    }
    answers[10].problem(429, "too-many-requests");
    assert_eq!(answers[10].header("retry-after"), Some("120"));
}

#[test]
fn behind_a_proxy_that_is_trusted_each_client_is_himself() {
    let from = |site: &Site, client: &str, password: &str| {
        let headers = format!("content-type: application/json\r\nx-forwarded-for: 6.6.6.6, {client}\r\n");
        site.request("POST", "/v1/sessions", &headers, &json!({"name": "anna", "password": password}).to_string())
    };
    let trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    for (config, told_apart) in
        [(ApiConfig { trusted_proxies, ..ApiConfig::default() }, true), (ApiConfig::default(), false)]
    {
        let site = Site::with(config);
        let user = json!({"name": "anna", "password": PASSWORD, "role": "operator"});
        assert_eq!(site.post("/v1/users", &user.to_string()).status, 201);
        for _ in 0..10 {
            from(&site, "192.0.2.1", "wrong password").problem(401, "login-refused");
        }
        from(&site, "192.0.2.1", PASSWORD).problem(429, "too-many-requests");
        assert_eq!(from(&site, "192.0.2.2", PASSWORD).status, if told_apart { 201 } else { 429 });
        if told_apart {
            let audit = site.get("/v1/audit?action=session.add").json();
            assert_eq!(audit["items"][0]["detail"]["from"], "192.0.2.2", "{audit}");
        }
    }
}

#[test]
fn a_token_that_is_used_too_often_is_told_to_wait() {
    let site = Site::new();
    let made = site.post("/v1/tokens", &json!({"name": "busy", "role": "viewer"}).to_string());
    let busy = token(&made);
    for _ in 0..1_000 {
        assert_eq!(with(&site, &busy, "GET", "/v1/sessions/current", &Value::Null).status, 200);
    }
    let refused = with(&site, &busy, "GET", "/v1/sessions/current", &Value::Null);
    refused.problem(429, "too-many-requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(site.get("/v1/sessions/current").status, 200, "the administrator is not limited");
    site.advance(std::time::Duration::from_millis(10));
    assert_eq!(with(&site, &busy, "GET", "/v1/sessions/current", &Value::Null).status, 200);
}
