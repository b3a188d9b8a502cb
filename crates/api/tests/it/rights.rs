//! Who may what: every endpoint, asked by everybody.
//!
//! What comes out is `docs/permissions.md`. An endpoint that is not in [`asking`] fails the test, and so does one whose
//! outcome is not what its permission and the roles say.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use vestibule_platform::{
    Caller, DeviceId, DevicePath, Entrance, MediaStorage, NewDevice, NewToken, NewUser, Offer, Offered, OrgPath,
    Permission, Role, Secret, Wish,
};

use crate::site::{NOW, Site};

/// How an endpoint is asked, and what somebody is answered who may.
struct Asking {
    path: String,
    query: &'static str,
    headers: &'static str,
    body: String,
    allowed: u16,
    /// It is about a session, which a token is not.
    as_user: bool,
}

/// What is there to be seen, and hidden from who is bound to another place.
struct Hidden {
    serial: String,
    waiting: String,
    token: String,
    webhook: String,
    user: String,
    import: String,
    bulk: String,
}

/// A name that nobody can have (RFC 6761).
const NOWHERE: &str = "https://nobody.invalid/hook";

/// Every endpoint. A device that nobody sees in vain is not there when an operation is about a connection: 409.
fn asking(operation: &str, template: &str, hidden: &Hidden) -> Asking {
    let patch = "content-type: application/merge-patch+json\r\n";
    let json = "content-type: application/json\r\n";
    let plain = |allowed| (String::new(), "", "", allowed);
    let sent = |body: Value, allowed| (body.to_string(), json, "", allowed);
    let fresh = format!("N-{}", uuid::Uuid::now_v7());
    let (body, headers, query, allowed) = match operation {
        "list_devices" | "show_device" | "explain_device" | "list_children" | "list_attributes" | "list_events"
        | "list_operations" | "list_queue" | "list_passed" | "list_history" | "export_events" | "export_attributes"
        | "list_audit" | "list_tokens" | "list_users" | "show_session" | "metrics" | "alive" | "ready" | "document"
        | "explain_problem" | "live_page" | "disable_device" | "enable_device" => plain(200),
        "stream_events" | "stream_attributes" | "stream_passed" => (String::new(), "", "?after=0", 200),
        "show_attribute" => plain(200),
        "remove_device" | "cancel_waiting" | "remove_token" | "remove_user" | "log_out" => plain(204),
        "register_device" => sent(json!({"serial": fresh, "code": "ABCDEF"}), 201),
        "describe_device" => (json!({"name": "x"}).to_string(), patch, "", 200),
        "open_enrolment" => sent(json!({"window_seconds": 60}), 200),
        "rotate_device" => sent(json!({}), 200),
        "set_device_suites" => sent(json!({"legacy": true}), 200),
        "provision_device" => plain(422),
        "redirect_device" => sent(json!({"host": "hall.example"}), 409),
        "force_device_offline" => plain(409),
        "set_device_keep_alive" => sent(json!({"seconds": 60}), 409),
        "silence_device" => sent(json!({"commands": {}}), 409),
        "set_attribute" => sent(json!({"value": 1, "wait_ms": 0}), 202),
        "invoke_operation" => sent(json!({"input": null}), 200),
        "pass_message" => ("x".to_owned(), "content-type: text/plain\r\n", "", 200),
        "export_devices" | "list_imports" | "show_import" | "cancel_import" | "list_bulk" | "show_bulk"
        | "cancel_bulk" | "list_views" | "show_view" | "list_strangers" => plain(200),
        "put_view" => sent(json!({"order": "name"}), 200),
        "remove_view" => plain(204),
        "show_authority" | "list_overdue" | "list_certificates" | "list_device_certificates" => plain(200),
        "list_product_rules" => plain(200),
        "set_product_rule" => sent(json!({"certificate": false}), 200),
        "roll_authority" | "retire_authority" => sent(json!({"purpose": "devices"}), 200),
        "issue_certificate" => {
            let key = rcgen::KeyPair::generate().expect("a key");
            let request = rcgen::CertificateParams::default().serialize_request(&key).expect("signed");
            let csr = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request.der());
            sent(json!({"csr": csr}), 201)
        }
        "revoke_certificates" => sent(json!({}), 200),
        "import_devices" => {
            let row = json!({"serial": fresh, "code": "ABCDEF"}).to_string();
            (row, "content-type: application/x-ndjson\r\n", "", 201)
        }
        "change_devices" => {
            let which = json!({"org": "/elsewhere"});
            sent(json!({"action": "disable", "filter": which, "dry_run": true}), 200)
        }
        "list_webhooks" | "show_webhook" | "enable_webhook" | "disable_webhook" | "list_dead_letters" => plain(200),
        "test_webhook" => sent(json!({}), 200),
        "remove_webhook" => plain(204),
        "add_webhook" => sent(json!({"url": NOWHERE}), 201),
        "change_webhook" => sent(json!({"url": NOWHERE}), 200),
        "replay_dead_letters" => sent(json!({}), 200),
        "offer_upload" => sent(json!({}), 201),
        "offer_download" => sent(json!({"id": uuid::Uuid::nil()}), 201),
        "make_token" => sent(json!({"name": fresh, "role": "viewer"}), 201),
        "add_user" => sent(json!({"name": fresh, "password": PASSWORD, "role": "viewer"}), 201),
        "set_user_password" => sent(json!({"password": "another password"}), 204),
        "change_password" => sent(json!({"current": PASSWORD, "password": "another password"}), 204),
        "log_in" => sent(json!({"name": "known", "password": PASSWORD}), 201),
        other => {
            panic!("{other}: say in crates/api/tests/it/rights.rs how it is asked, so that everybody is tried there")
        }
    };
    let part = [("{resource}", "Lamp"), ("{index}", "0"), ("{area}", "Light"), ("{name}", "Power")];
    let id = match template.split('/').nth(2) {
        Some("tokens") => &hidden.token,
        Some("users") => &hidden.user,
        Some("webhooks") => &hidden.webhook,
        Some("imports") => &hidden.import,
        Some("bulk") => &hidden.bulk,
        _ => &hidden.waiting,
    };
    let path = template.replace("/problems/{name}", "/problems/timeout");
    let path = path.replace("{product}", "hub").replace("{d}", &hidden.serial).replace("{id}", id);
    let path = part.iter().fold(path, |path, (name, value)| path.replace(name, value));
    let as_user = matches!(operation, "log_out" | "change_password");
    Asking { path, query, headers, body, allowed, as_user }
}

const PASSWORD: &str = "correct horse";

/// Has room for everything, and everything there is.
struct Store;

impl MediaStorage for Store {
    fn offer_upload(&self, _: DeviceId, wish: Wish, _: Entrance) -> Offered<'_> {
        let offer = Offer { id: uuid::Uuid::nil(), name: wish.name, url: "/there".into(), expires_in: HOUR };
        Box::pin(std::future::ready(Ok(offer)))
    }

    fn offer_download(&self, _: DeviceId, id: uuid::Uuid, _: Entrance) -> Offered<'_> {
        let offer = Offer { id, name: String::new(), url: "/there".into(), expires_in: HOUR };
        Box::pin(std::future::ready(Ok(offer)))
    }

    fn kept_for(&self) -> std::time::Duration {
        HOUR
    }
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

fn new_user(name: &str, role: Role, place: &str) -> NewUser {
    NewUser { name: name.into(), password: Secret::new(PASSWORD), role, subtree: Some(org(place)) }
}

/// Who asks: the heading of the column, and the token's role and place, if there is a token.
const WHO: [(&str, Option<(Role, &str)>); 6] = [
    ("no token", None),
    ("viewer", Some((Role::Viewer, "/"))),
    ("operator", Some((Role::Operator, "/"))),
    ("admin", Some((Role::Admin, "/"))),
    ("viewer elsewhere", Some((Role::Viewer, "/elsewhere"))),
    ("admin elsewhere", Some((Role::Admin, "/elsewhere"))),
];

fn org(path: &str) -> OrgPath {
    OrgPath::parse(path).expect("a place")
}

/// Makes a device at `/here` with something of everything, and a token beside it.
fn hide(site: &Site, n: usize, template: &str) -> Hidden {
    let (serial, by) = (format!("HIDDEN-{n}"), Caller::program());
    let new = NewDevice {
        serial: serial.clone(),
        code: Secret::new(*b"ABCDEF"),
        one_time: false,
        product: None,
        name: Some(serial.clone()),
        parent: None,
        org: Some(org("/here")),
        labels: Default::default(),
    };
    let device = site.wait(site.platform.add_device(new, &by)).expect("registered");
    let level = |text: &str| text.into();
    let path = DevicePath { resource: level("Lamp"), index: level("0"), area: level("Light"), name: level("Power") };
    let report = |kind| vestibule_platform::Report { kind, path: path.clone().into(), id: None, time: None, data: "1" };
    site.platform.report(&device, report(vestibule_platform::RecordKind::Attribute)).expect("taken");
    site.durable(site.append(&device, "Alarm", "Smoke", None, NOW, "1"));
    let queue = json!({"queue": {"expires_in": 60}}).to_string();
    let waiting = site.post(&format!("/v1/devices/{serial}/operations/Lamp/0/Light/Blink"), &queue).json();
    let token = NewToken { name: serial.clone(), role: Role::Viewer, subtree: Some(org("/here")), expires_in: None };
    site.wait(site.platform.add_token(token, &by)).expect("made");
    // There may not be as many as there are askings.
    let add = template.starts_with("/v1/webhooks/").then(|| json!({"url": NOWHERE, "name": serial}).to_string());
    let webhook = add.map(|add| site.post("/v1/webhooks", &add).json()["id"].as_str().expect("an id").to_owned());
    let webhook = webhook.unwrap_or_default();
    let user = format!("{serial}-U");
    if template.starts_with("/v1/users") {
        site.wait(site.platform.add_user(new_user(&user, Role::Viewer, "/here"), &by)).expect("added");
    }
    let (mut import, mut bulk) = (String::new(), String::new());
    if template.starts_with("/v1/imports/") {
        let headers = format!("{}content-type: application/x-ndjson\r\n", site.bearer());
        import = site.request("POST", "/v1/imports", &headers, "{}").json()["id"].as_str().expect("an id").to_owned();
    }
    if template.starts_with("/v1/views/") {
        site.wait(site.platform.put_view("Power", "{}".to_owned(), &by)).expect("kept");
    }
    if template.starts_with("/v1/bulk/") {
        let body = json!({"action": "enable", "devices": [serial]}).to_string();
        bulk = site.post("/v1/bulk", &body).json()["id"].as_str().expect("an id").to_owned();
    }
    let waiting = waiting["operation_id"].as_str().expect("an id").to_owned();
    Hidden { waiting, token: serial.clone(), serial, user, webhook, import, bulk }
}

/// The status, and the body of an answer that ends.
fn ask(site: &Site, method: &str, asking: &Asking, token: Option<&str>) -> (u16, String) {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let headers = format!("{authorization}{}", asking.headers);
    if !asking.path.ends_with("/stream") {
        let answer = site.request(method, &format!("{}{}", asking.path, asking.query), &headers, &asking.body);
        return (answer.status, answer.body);
    }
    let mut stream = site.connect();
    let head = format!("GET {}{} HTTP/1.0\r\nhost: x\r\n{headers}\r\n", asking.path, asking.query);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("a status");
    (String::from_utf8_lossy(&start[9..]).parse().expect("a status"), String::new())
}

/// What the permission and the roles say, as a cell of the table.
fn expected(permission: &str, method: &str, template: &str, who: Option<(Role, &str)>) -> &'static str {
    if permission == "open" {
        return "yes";
    }
    let Some((role, place)) = who else { return "401" };
    if permission == "any" {
        return "yes";
    }
    let permission = Permission::ALL.into_iter().find(|one| one.as_str() == permission).expect("a permission");
    let is_bound = place != "/";
    match role.has(permission) && !(is_bound && permission.is_of_the_whole()) {
        false => "403",
        true if is_bound && (template.contains("{d}") || template.contains("{id}")) => "404",
        // Each place has views of its own.
        true if is_bound && template == "/v1/views/{name}" && method != "PUT" => "404",
        true if is_bound => "own",
        true => "yes",
    }
}

#[test]
fn everybody_may_what_the_table_says_at_every_endpoint() {
    let site = Site::new();
    let store = std::sync::Arc::new(Store);
    site.platform.keep_media_in(&store);
    let tokens = WHO.map(|(name, who)| {
        let (role, place) = who?;
        let new = NewToken { name: name.into(), role, subtree: Some(org(place)), expires_in: None };
        let made = site.wait(site.platform.add_token(new, &Caller::program())).expect("made");
        Some(made.1.to_string())
    });
    site.wait(site.platform.add_user(new_user("known", Role::Viewer, "/"), &Caller::program())).expect("added");
    let document: Value = serde_json::from_str(&vestibule_api::openapi_json()).expect("JSON");
    let mut rows = String::new();
    let mut n = 0;
    for (template, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let permission =
                operation["x-permission"].as_str().unwrap_or_else(|| panic!("{template} names no permission"));
            let name = operation["operationId"].as_str().expect("a name");
            let method = method.to_uppercase();
            write!(rows, "| `{method} {template}` | {permission} |").expect("written");
            for ((heading, who), token) in WHO.iter().zip(&tokens) {
                n += 1;
                let asking = asking(name, template, &hide(&site, n, template));
                let session = who.filter(|_| asking.as_user).map(|(role, place)| {
                    let user = format!("user {n}");
                    site.wait(site.platform.add_user(new_user(&user, role, place), &Caller::program())).expect("added");
                    let from = std::net::Ipv4Addr::LOCALHOST.into();
                    let session = site.wait(site.platform.log_in(&user, Secret::new(PASSWORD), from)).expect("known");
                    session.token.to_string()
                });
                let token = session.as_ref().or(token.as_ref());
                let (status, body) = ask(&site, &method, &asking, token.map(String::as_str));
                let expected = expected(permission, &method, template, *who);
                let status_of = |cell: &str| cell.parse().unwrap_or(asking.allowed);
                assert_eq!(status, status_of(expected), "{method} {template} asked by {heading}: {body}");
                if expected == "own" {
                    assert!(!body.contains("HIDDEN"), "{method} {template} shows {heading} too much: {body}");
                }
                write!(rows, " {expected} |").expect("written");
            }
            rows.push('\n');
        }
    }
    let headings: Vec<_> = WHO.iter().map(|(heading, _)| *heading).collect();
    let page = format!(
        "{INTRODUCTION}\n| endpoint | permission | {} |\n|{}\n{rows}",
        headings.join(" | "),
        " --- |".repeat(2 + WHO.len())
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/permissions.md");
    if std::env::var_os("UPDATE_PERMISSIONS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/permissions.md is not what is so; run: UPDATE_PERMISSIONS=1 cargo test -p vestibule-api --test it rights"
    );
}

const INTRODUCTION: &str = "# Who may what

This page is written by a test that asks every endpoint as everybody (`crates/api/tests/it/rights.rs`); do not edit it.

A role is a fixed set of permissions: a **viewer** sees; an **operator** sees, and has devices do something; an **admin**
does everything. Each is bound to a part of the organisation, `/` being the whole. What belongs elsewhere is not there for
who is bound to a part: devices are not found, and lists and streams leave them out. Permissions about the platform as a
whole (`authority_manage`, `metrics_read`, `mqtt_use`) are not for who is bound to a part. The administrator, who holds the token in the data
directory, is an admin of the whole. An endpoint with the permission `open` asks for no token, one with `any` for one
whatever it may do, and is about its holder only.

A token that ends by itself does not live on in what it makes: a token that it makes ends no later (without `expires_in` at
the same moment, and a longer one is refused), and it can neither add users nor give them passwords (403). A user's session
is over after twelve hours, but who has logged in may do so again: what users make ends when they say.

A serial is one device's in the whole platform, and a name one token's or user's. Who registers one that is taken is told so
(409) also when it is taken elsewhere, and nothing more: neither whose it is nor where.

| | |
| --- | --- |
| yes | answered |
| own | answered, and shows or makes only what is in one's own part |
| 401 | nobody has this token, or there is none |
| 403 | the role does not have the permission |
| 404 | as if it did not exist: it is elsewhere |
";
