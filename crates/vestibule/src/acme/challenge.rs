//! The plain HTTP listener that an ACME server looks at (RFC 8555 8.3). It answers challenges, and sends everybody else to HTTPS.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Where challenges lie.
const PATH: &str = "/.well-known/acme-challenge/";
/// Connections at once; one more takes the place of the oldest, which has had the most time.
const CONNECTIONS: usize = 64;
/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest head of a request.
const MAX_HEAD: usize = 8 * 1024;

/// Answers to challenges that are under way, by their tokens.
#[derive(Clone, Default)]
pub(super) struct Challenges(Arc<Mutex<HashMap<String, String>>>);

impl Challenges {
    pub(super) fn put(&self, token: String, answer: String) {
        self.0.lock().insert(token, answer);
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    fn get(&self, token: &str) -> Option<String> {
        self.0.lock().get(token).cloned()
    }
}

/// Answers on this listener for as long as it runs; `https` is where everybody else is sent, once that is known.
pub(super) async fn serve(listener: TcpListener, challenges: Challenges, https: Arc<OnceLock<SocketAddr>>) {
    let mut under_way: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "tls.acme.challenge_listen takes no connections for a second");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (challenges, https) = (challenges.clone(), https.get().copied());
        under_way.retain(|one| !one.is_finished());
        if under_way.len() >= CONNECTIONS
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.abort();
        }
        let task = tokio::spawn(async move {
            // Who is too slow, or gone, needs no answer.
            let _ = timeout(PATIENCE, async {
                if let Some(head) = head(&mut stream).await {
                    let _ = stream.write_all(answer(&head, &challenges, https).as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            })
            .await;
        });
        under_way.push_back(task.abort_handle());
    }
}

/// The head of a request, when it is text and comes whole.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if bytes.len() >= MAX_HEAD || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

fn answer(head: &str, challenges: &Challenges, https: Option<SocketAddr>) -> String {
    let mut answer = whole_answer(head, challenges, https);
    if head.starts_with("HEAD ")
        && let Some(end) = answer.find("\r\n\r\n")
    {
        answer.truncate(end + 4);
    }
    answer
}

fn whole_answer(head: &str, challenges: &Challenges, https: Option<SocketAddr>) -> String {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some("GET" | "HEAD"), Some(path)) = (words.next(), words.next()) else {
        return told("405 Method Not Allowed", "allow: GET, HEAD\r\n", "");
    };
    if let Some(token) = path.strip_prefix(PATH) {
        return match challenges.get(token) {
            Some(answer) => told("200 OK", "content-type: application/octet-stream\r\n", &answer),
            None => told("404 Not Found", "", ""),
        };
    }
    let host = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("host"));
    // Only the name counts, and only one that can be one.
    let host = host.map(|(_, value)| value.trim()).map(|host| host.split(':').next().unwrap_or(host));
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    match (host.filter(|host| vestibule_tls::is_name(host) && plain), https) {
        (Some(host), Some(address)) => {
            let port = if address.port() == 443 { String::new() } else { format!(":{}", address.port()) };
            told("308 Permanent Redirect", &format!("location: https://{host}{port}{path}\r\n"), "")
        }
        _ => told("404 Not Found", "", ""),
    }
}

fn told(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_answered_and_everybody_else_is_sent_to_https() {
        let challenges = Challenges::default();
        challenges.put("abc".to_owned(), "abc.key".to_owned());
        let https = Some("192.0.2.1:8443".parse().expect("an address"));
        let said = |request: &str, https| answer(&format!("{request}\r\n\r\n"), &challenges, https);
        let found = said("GET /.well-known/acme-challenge/abc HTTP/1.1\r\nhost: x", https);
        assert!(found.starts_with("HTTP/1.1 200 OK") && found.ends_with("\r\n\r\nabc.key"), "{found}");
        let head = said("HEAD /.well-known/acme-challenge/abc HTTP/1.1\r\nhost: x", https);
        assert!(head.contains("content-length: 7\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let unknown = said("GET /.well-known/acme-challenge/../abc HTTP/1.1\r\nhost: x", https);
        assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
        let sent = said("GET /a?b HTTP/1.1\r\nHost: hall.example:80", https);
        assert!(sent.contains("308") && sent.contains("location: https://hall.example:8443/a?b\r\n"), "{sent}");
        let usual = said("GET / HTTP/1.1\r\nhost: hall.example", Some("192.0.2.1:443".parse().expect("an address")));
        assert!(usual.contains("location: https://hall.example/\r\n"), "{usual}");
        for (request, https) in [
            ("GET / HTTP/1.1\r\nhost: a b", https),
            ("GET / HTTP/1.1", https),
            ("GET x HTTP/1.1\r\nhost: x", https),
            ("GET / HTTP/1.1\r\nhost: x", None),
        ] {
            assert!(said(request, https).starts_with("HTTP/1.1 404"), "{request}");
        }
        assert!(said("POST / HTTP/1.1\r\nhost: x", https).starts_with("HTTP/1.1 405"));
        challenges.clear();
        assert!(said("GET /.well-known/acme-challenge/abc HTTP/1.1", https).starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn who_comes_last_is_answered_however_many_say_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve(listener, Challenges::default(), Arc::default()));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(tokio::net::TcpStream::connect(address).await.expect("connected"));
        }
        let begun = std::time::Instant::now();
        let mut last = tokio::net::TcpStream::connect(address).await.expect("connected");
        last.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        let mut said = String::new();
        last.read_to_string(&mut said).await.expect("answered");
        assert!(said.starts_with("HTTP/1.1 404") && begun.elapsed() < PATIENCE, "{said}");
        server.abort();
    }

    #[tokio::test]
    async fn a_head_without_end_is_nobodys() {
        let long = [b'x'; MAX_HEAD + 1];
        assert_eq!(head(&mut &long[..]).await, None);
        assert_eq!(head(&mut &b"GET / HTTP/1.1\r\n"[..]).await, None);
        assert_eq!(head(&mut &b"\xff\r\n\r\n"[..]).await, None);
    }
}
