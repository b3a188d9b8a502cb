//! Pictures over HTTPS.

use std::sync::Arc;

use osap::modern::ticket::Used;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use vestibule_device::{Device, Picture};

use super::house::House;
use super::peer::{Down, Peer, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

/// Takes one request and gives its first line; nothing when no TLS comes about.
async fn take(listener: &TcpListener, house: &House) -> Option<String> {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(Arc::clone(&house.web)).accept(tcp).await.ok()?;
    let mut request = Vec::new();
    while !request.ends_with(b"the picture") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    Some(String::from_utf8_lossy(&request).lines().next().unwrap().to_owned())
}

/// A device that is online and has a picture to send.
async fn sending(peer: &mut Peer) -> (Device, JoinHandle<()>) {
    let device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == vestibule_device::State::Online).await;
    let sender = device.clone();
    let sent = tokio::spawn(async move {
        sender.upload_picture(&Picture::jpeg(b"the picture".to_vec())).await.unwrap();
    });
    (device, sent)
}

/// Tells the device where its picture may be put.
async fn grant(peer: &mut Peer, url: &str) {
    let query = peer.event().await;
    let asked: serde_json::Value = serde_json::from_str(&query.body).unwrap();
    let name = &asked["objects"][0]["name"];
    let object = json!({"name": name, "method": "PUT", "url": url, "headers": {}, "expire": 60});
    let body = json!({"code": 0, "objects": [object]}).to_string();
    peer.down(Down::Send { topic: format!("{}_reply", query.topic), seq: query.seq, body });
    peer.expect([Seen::PubAck]).await;
}

#[tokio::test]
async fn a_picture_goes_where_the_same_anchors_vouch() {
    let mut peer = Peer::tls().await;
    let house = peer.site.house.clone();
    let (_device, sent) = sending(&mut peer).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/media?ticket=1", listener.local_addr().unwrap());
    grant(&mut peer, &url).await;
    assert_eq!(soon(take(&listener, &house)).await.as_deref(), Some("PUT /media?ticket=1 HTTP/1.1"));
    soon(sent).await.unwrap();
}

#[tokio::test]
async fn a_picture_is_shown_to_no_stranger() {
    let mut peer = Peer::tls().await;
    let (_device, sent) = sending(&mut peer).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/media", listener.local_addr().unwrap());
    grant(&mut peer, &url).await;
    assert_eq!(soon(take(&listener, &House::new())).await, None);
    assert!(!sent.is_finished());
}
