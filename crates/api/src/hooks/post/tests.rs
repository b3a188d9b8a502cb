use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const ANSWER: Duration = Duration::from_millis(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn allowing(networks: &[&str]) -> Guard {
    Guard::new(networks.iter().map(|text| text.parse().expect(text)).collect())
}

fn poster() -> Poster {
    Poster::new(allowing(&["127.0.0.0/8"]), &Authorities::default(), ANSWER)
}

/// One whose names all have these addresses, one list after the other for each question; the last stays.
fn resolving(guard: Guard, answers: Vec<Vec<SocketAddr>>) -> Poster {
    let asked = AtomicUsize::new(0);
    Poster::resolving(guard, &Authorities::default(), ANSWER, move |_, _| {
        let number = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[number].clone();
        Box::pin(async move { Ok(answer) })
    })
}

/// A receiver that answers each request on each connection with these bytes; how many connections it has taken.
async fn receiver(host: &str, answer: impl Into<Vec<u8>>, close: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let answer = answer.into();
    let listener = TcpListener::bind((host, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&answer).await.is_err() || close {
                        return;
                    }
                }
            });
        }
    });
    (address, taken)
}

async fn send(poster: &Poster, pool: &Pool, url: &str) -> Result<Answered, PostError> {
    let target = Target::parse(url).expect("an address");
    poster.post(pool, &target, &HeaderMap::new(), &Bytes::from_static(b"{}")).await
}

async fn sent(answer: impl Into<Vec<u8>>, close: bool) -> (Result<Answered, PostError>, Pool) {
    let (address, _) = receiver("127.0.0.1", answer, close).await;
    let pool = Pool::default();
    let answered = send(&poster(), &pool, &format!("http://{address}/in")).await;
    (answered, pool)
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (address, taken) = receiver("127.0.0.1", OK, false).await;
    let (poster, pool) = (poster(), Pool::default());
    for _ in 0..3 {
        let answered = send(&poster, &pool, &format!("http://{address}/")).await.expect("an answer");
        assert_eq!(answered.status, 200);
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let (address, taken) = receiver("127.0.0.1", OK, true).await;
    let (poster, pool) = (poster(), Pool::default());
    for _ in 0..3 {
        assert!(send(&poster, &pool, &format!("http://{address}/")).await.is_ok());
    }
    assert_eq!(taken.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_no_more_than_its_time() {
    let (answered, pool) = sent("", false).await;
    assert!(matches!(answered, Err(PostError::AnswerTimeout(_))), "{answered:?}");
    // Nor does one whose answer comes without end, head first.
    let (answered, _) = sent("HTTP/1.1 100 Continue\r\n\r\n", false).await;
    assert!(matches!(answered, Err(PostError::AnswerTimeout(_))), "{answered:?}");
    assert!(pool.take().is_none());
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
    answer.resize(4 << 20, b'x');
    let (answered, pool) = sent(answer, false).await;
    assert_eq!(answered.expect("an answer").status, 200);
    assert!(pool.take().is_none(), "the rest would be taken for the next answer");
}

#[tokio::test]
async fn huge_heads_and_broken_answers_are_failures() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
    for answer in [long.as_str(), &many, "HTTP/1.1 2", "SSH-2.0-OpenSSH\r\n\r\n", "\0\0\0\0"] {
        let (answered, pool) = sent(answer, true).await;
        assert!(matches!(answered, Err(PostError::Broken(_))), "{answered:?}");
        assert!(pool.take().is_none());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_its_body_has_its_status() {
    let (answered, pool) = sent("HTTP/1.1 503 Later\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nx", true).await;
    let answered = answered.expect("an answer");
    assert_eq!((answered.status.as_u16(), answered.retry_after.as_deref()), (503, Some("7")));
    assert!(pool.take().is_none());
}

#[tokio::test]
async fn what_speaks_no_tls_is_not_told_over_it() {
    let (address, _) = receiver("127.0.0.1", OK, true).await;
    let answered = send(&poster(), &Pool::default(), &format!("https://{address}/")).await;
    assert!(matches!(answered, Err(PostError::Tls(_))), "{answered:?}");
}

#[tokio::test]
async fn ssrf_a_redirect_to_the_inside_is_an_answer_and_no_more() {
    let (inside, inner) = receiver("127.0.0.1", OK, true).await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: http://{inside}/\r\ncontent-length: 0\r\n\r\n");
    let (answered, _) = sent(redirect, false).await;
    assert_eq!(answered.expect("an answer").status, 302);
    assert_eq!(inner.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn ssrf_a_name_that_points_inside_is_refused_when_it_is_connected_to() {
    let (inside, taken) = receiver("127.0.0.1", OK, true).await;
    for inner in [inside.ip(), "::ffff:127.0.0.1".parse().expect("one")] {
        let poster = resolving(Guard::default(), vec![vec![SocketAddr::new(inner, inside.port())]]);
        let answered = send(&poster, &Pool::default(), "http://hall.example/").await;
        assert!(matches!(answered, Err(PostError::Refused(_, "loopback"))), "{answered:?}");
    }
    let local = Poster::new(Guard::default(), &Authorities::default(), ANSWER);
    let answered = send(&local, &Pool::default(), &format!("http://localhost:{}/", inside.port())).await;
    assert!(matches!(answered, Err(PostError::Refused(..))), "{answered:?}");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn ssrf_a_name_that_is_rebound_is_looked_at_each_time() {
    let (outside, _) = receiver("127.0.0.2", OK, true).await;
    let (inside, inner) = receiver("127.0.0.1", OK, true).await;
    let poster = resolving(allowing(&["127.0.0.2/32"]), vec![vec![outside], vec![inside]]);
    assert!(send(&poster, &Pool::default(), "http://hall.example/").await.is_ok());
    let answered = send(&poster, &Pool::default(), "http://hall.example/").await;
    assert!(matches!(answered, Err(PostError::Refused(..))), "{answered:?}");
    assert_eq!(inner.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn ssrf_of_a_name_that_points_to_both_only_the_outside_is_connected_to() {
    let (outside, outer) = receiver("127.0.0.2", OK, true).await;
    let (inside, inner) = receiver("127.0.0.1", OK, true).await;
    for both in [vec![inside, outside], vec![outside, inside]] {
        let poster = resolving(allowing(&["127.0.0.2/32"]), vec![both]);
        assert!(send(&poster, &Pool::default(), "http://hall.example/").await.is_ok());
    }
    // Nor is the inside a way out when the outside does not answer.
    let dead = SocketAddr::new(outside.ip(), 1);
    let poster = resolving(allowing(&["127.0.0.2/32"]), vec![vec![dead, inside]]);
    let answered = send(&poster, &Pool::default(), "http://hall.example/").await;
    assert!(matches!(answered, Err(PostError::Connect(_))), "{answered:?}");
    assert_eq!((outer.load(Ordering::SeqCst), inner.load(Ordering::SeqCst)), (2, 0));
}
