//! Whose the device is: asked of the platform, and changed by a token (osap-wire 10.4).

use vestibule_device::{BindError, CommandError, Device, MemoryStorage, OwnerError};

use crate::life::start;
use crate::server::{Command, Server};
use crate::soon;
use crate::steered::online;

/// The device asks, and the platform answers so, under the number of the question.
async fn answered(device: &Device, server: &mut Server, answer: &str) -> Result<Option<String>, OwnerError> {
    let asks = async {
        let question = server.command().await;
        assert_eq!((&*question.topic, &*question.version, question.answers), ("/1100/13381", "v2.0.0", false));
        assert_eq!(question.body, "<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>");
        server.send("/SN0000001/1100/13382", question.seq + 1000, "<Response><Result>0</Result></Response>").await;
        server.send("/SN0000001/1100/13382", question.seq, answer).await;
    };
    let (owner, ()) = soon(async { tokio::join!(device.owner(), asks) }).await;
    owner
}

#[tokio::test]
async fn osap_10_4_a_device_asks_whose_it_is() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    for (answer, expected) in [
        ("<Response><Result>0</Result><User Id=\"u&amp;1\"/></Response>", Ok(Some("u&1".to_owned()))),
        ("<Response><Result>0</Result></Response>", Ok(None)),
        ("<Response><Result>1055746</Result></Response>", Ok(None)),
        ("<Response><Result>9</Result></Response>", Err(OwnerError::Unknown(9))),
    ] {
        assert_eq!(answered(&device, &mut server, answer).await, expected, "{answer}");
    }
    assert_eq!(device.counters().ignored, 4, "an answer under another number belongs to nothing");
}

#[tokio::test]
async fn osap_10_4_answers_belong_to_their_questions() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    let answers = async {
        let (first, second) = (server.command().await, server.command().await);
        for (question, user) in [(second, "b"), (first, "a")] {
            let answer = format!("<Response><Result>0</Result><User Id=\"{user}\"/></Response>");
            server.send("/SN0000001/1100/13382", question.seq, answer).await;
        }
    };
    let (a, b, ()) = soon(async { tokio::join!(device.owner(), device.owner(), answers) }).await;
    assert_eq!((a, b), (Ok(Some("a".into())), Ok(Some("b".into()))));
}

#[tokio::test]
async fn a_question_that_is_not_answered_ends() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    let (owner, _) = soon(async {
        tokio::join!(device.owner(), async {
            server.command().await;
            server.kill.notify_one();
        })
    })
    .await;
    assert_eq!(owner, Err(OwnerError::NoAnswer), "the connection is gone");
    server.next().await;
    crate::reach(&device, |state| *state == vestibule_device::State::Online).await;
    // From here on the clock runs ahead whenever nothing else is to be done.
    tokio::time::pause();
    let (owner, _) = tokio::join!(device.owner(), server.command());
    assert_eq!(owner, Err(OwnerError::NoAnswer), "nothing came");
    tokio::time::resume();
}

#[tokio::test]
async fn few_questions_wait_at_the_same_time() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    let questions: Vec<_> = (0..9)
        .map(|_| {
            tokio::spawn({
                let device = device.clone();
                async move { device.owner().await }
            })
        })
        .collect();
    for _ in 0..8 {
        server.command().await;
    }
    server.kill.notify_one();
    let mut ends = Vec::new();
    for question in questions {
        ends.push(soon(question).await.expect("no panic"));
    }
    let busy = ends.iter().filter(|end| **end == Err(OwnerError::NotAsked(CommandError::Busy))).count();
    let unanswered = ends.iter().filter(|end| **end == Err(OwnerError::NoAnswer)).count();
    assert_eq!((busy, unanswered), (1, 8));
}

#[tokio::test]
async fn osap_10_4_a_token_binds_the_device() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    device.bind("s\"ecret").unwrap();
    let Command { topic, version, answers, body, .. } = server.command().await;
    assert_eq!((&*topic, &*version, answers, &*body), ("/1100/14338", "v2.0.0", false, r#"{"token":"s\"ecret"}"#));
    server.send("/SN0000001/1100/14339", 1, r#"{"result":0}"#).await;
    for bad in [String::new(), "x".repeat(1025)] {
        assert_eq!(device.bind(&bad), Err(BindError::Token));
    }
    server.send("/SN0000001/1000/2", 2, r#"{"risk":{"1100":[13381,14338]}}"#).await;
    assert_eq!(device.bind("t"), Err(BindError::NotSent(CommandError::Forbidden)));
    assert_eq!(device.owner().await, Err(OwnerError::NotAsked(CommandError::Forbidden)));
    assert_eq!((device.counters().forbidden, device.counters().ignored), (2, 0));
}

#[tokio::test]
async fn a_device_that_is_not_there_asks_nobody() {
    let server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    soon(device.stop()).await.unwrap();
    assert_eq!(device.owner().await, Err(OwnerError::NotAsked(CommandError::Offline)));
    assert_eq!(device.bind("t"), Err(BindError::NotSent(CommandError::Offline)));
}
