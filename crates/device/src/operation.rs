//! Operations: what a program does when the platform asks for it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use osap::Serial;
use osap::das::reply::{FAILED, Reply};
use osap::das::topic::{Topic, TopicError, method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pass::PassThrough;

/// The largest answer, in bytes: what fits into a packet with its topic.
const MAX_ANSWER: usize = 15 * 1024;

/// An operation was not carried out. The platform is told the code and the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct OperationError {
    code: i64,
    message: String,
}

impl OperationError {
    /// A failure with a code of the device's own. 0 means success and becomes -1.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code: if code == 0 { FAILED } else { code }, message: message.into() }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> i64 {
        self.code
    }

    /// The body that says so.
    pub(crate) fn body(&self) -> Box<[u8]> {
        let mut out = Vec::new();
        let mut reply = Reply { code: self.code, message: Some((&*self.message).into()), data: None };
        if reply.write(&mut out).is_err() || out.len() > MAX_ANSWER {
            out.clear();
            reply.message = None;
            reply.write(&mut out).expect("a number alone is a body");
        }
        out.into()
    }
}

/// A part of the device, as operations name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OperationPath {
    /// The serial of a child, or `global`.
    pub sub: Box<str>,
    pub resource: Box<str>,
    pub index: Box<str>,
    pub area: Box<str>,
    pub name: Box<str>,
}

impl OperationPath {
    pub(crate) fn new(sub: &str, resource: &str, index: u16, area: &str, name: &str) -> Self {
        let index = index.to_string().into();
        Self { sub: sub.into(), resource: resource.into(), index, area: area.into(), name: name.into() }
    }

    /// Whether topics can name it.
    pub(crate) fn check(&self, serial: &Serial) -> Result<(), TopicError> {
        self.reply_topic(serial, method::SERVICE, "operate_reply").map(drop)
    }

    /// The topic of the answer to a request of the model (osap-wire 9.8).
    pub(crate) fn reply_topic(
        &self,
        serial: &Serial,
        method: &'static str,
        msg_type: &'static str,
    ) -> Result<Box<str>, TopicError> {
        let topic = Topic::Model {
            serial: serial.as_str(),
            sub: &self.sub,
            index: &self.index,
            resource: &self.resource,
            method,
            msg_type,
            area: &self.area,
            name: &self.name,
        };
        topic.encode().map(Into::into)
    }
}

/// Carries an operation out and gives the body of the answer.
type Running = Pin<Box<dyn Future<Output = Box<[u8]>> + Send>>;
type Handler = dyn Fn(Option<Box<str>>) -> Running + Send + Sync;
type PassHandler = dyn Fn(PassThrough) + Send + Sync;

/// What the program can do.
#[derive(Default)]
pub(crate) struct Operations {
    handlers: HashMap<OperationPath, Arc<Handler>>,
    /// Of attributes that the platform may set; they take the value and give nothing.
    setters: HashMap<OperationPath, Arc<Handler>>,
    /// Takes what applications send.
    pass: Option<Box<PassHandler>>,
}

impl Operations {
    pub(crate) fn add<In, Out, F, Fut>(&mut self, path: OperationPath, handler: F)
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, OperationError>> + Send + 'static,
    {
        self.handlers.insert(path, typed(handler));
    }

    pub(crate) fn add_attribute<In, F, Fut>(&mut self, path: OperationPath, handler: F)
    where
        In: DeserializeOwned + Send + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), OperationError>> + Send + 'static,
    {
        self.setters.insert(path, typed(handler));
    }

    pub(crate) fn set_pass(&mut self, handler: impl Fn(PassThrough) + Send + Sync + 'static) {
        self.pass = Some(Box::new(handler));
    }

    /// What takes a pass-through, if something does.
    pub(crate) fn pass(&self) -> Option<&PassHandler> {
        self.pass.as_deref()
    }

    /// Attributes that the platform may set.
    pub(crate) fn writable(&self) -> impl Iterator<Item = &OperationPath> {
        self.setters.keys()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &OperationPath> {
        self.handlers.keys().chain(self.setters.keys())
    }

    fn handler(&self, path: &OperationPath, sets: bool) -> Option<&Arc<Handler>> {
        if sets { self.setters.get(path) } else { self.handlers.get(path) }
    }

    /// Begins an operation, or sets an attribute; `None` when the program does not know it. The program's own code may
    /// panic already here.
    pub(crate) fn begin(&self, path: &OperationPath, sets: bool, input: Option<Box<str>>) -> Option<Running> {
        let handler = self.handler(path, sets)?;
        let begun = catch_unwind(AssertUnwindSafe(|| handler(input)));
        Some(begun.unwrap_or_else(|_| Box::pin(std::future::ready(crashed()))))
    }

    pub(crate) fn knows(&self, path: &OperationPath, sets: bool) -> bool {
        self.handler(path, sets).is_some()
    }
}

/// A handler between JSON and the program's types.
fn typed<In, Out, F, Fut>(handler: F) -> Arc<Handler>
where
    In: DeserializeOwned + Send + 'static,
    Out: Serialize + 'static,
    F: Fn(In) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out, OperationError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let run = move |input: Option<Box<str>>| -> Running {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let input = match serde_json::from_str::<In>(input.as_deref().unwrap_or("null")) {
                Ok(input) => input,
                Err(error) => return OperationError::new(FAILED, format!("the input is wrong: {error}")).body(),
            };
            match handler(input).await {
                Ok(output) => done(&output),
                Err(error) => error.body(),
            }
        })
    };
    Arc::new(run)
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.paths()).finish()
    }
}

/// The body of a success. Nothing (`()`, `null`) is no output.
fn done(output: &impl Serialize) -> Box<[u8]> {
    let json = match serde_json::to_string(output) {
        Ok(json) => json,
        Err(error) => return OperationError::new(FAILED, format!("the output cannot be written: {error}")).body(),
    };
    let mut out = Vec::new();
    let data = (json != "null").then_some(&*json);
    match (Reply { code: 0, message: None, data }).write(&mut out) {
        Ok(()) if out.len() <= MAX_ANSWER => out.into(),
        _ => OperationError::new(FAILED, "it was done, and its output is too large to be sent").body(),
    }
}

/// The program panicked.
pub(crate) fn crashed() -> Box<[u8]> {
    OperationError::new(FAILED, "the device's program failed").body()
}

/// Nobody registered for it.
pub(crate) fn unknown() -> Box<[u8]> {
    OperationError::new(FAILED, "the device has no such operation").body()
}

/// Too many are under way.
pub(crate) fn busy() -> Box<[u8]> {
    OperationError::new(FAILED, "the device is busy with other operations").body()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> OperationPath {
        OperationPath::new(osap::das::topic::GLOBAL, "Lamp", 0, "Light", name)
    }

    async fn run(operations: &Operations, name: &str, input: Option<&str>) -> String {
        let body = operations.begin(&path(name), false, input.map(Into::into)).expect("known").await;
        String::from_utf8(body.into()).expect("JSON")
    }

    #[tokio::test]
    async fn input_and_output_are_typed() {
        let mut operations = Operations::default();
        operations.add(path("Double"), async |n: u32| Ok(2 * n));
        operations.add(path("Reset"), async |(): ()| Ok(()));
        operations.add(path("Jam"), async |_: Option<u32>| Err::<(), _>(OperationError::new(7, "jammed")));
        operations.add(path("Dump"), async |n: usize| Ok("x".repeat(n)));
        assert_eq!(run(&operations, "Double", Some("21")).await, r#"{"code":0,"data":42}"#);
        assert_eq!(run(&operations, "Reset", None).await, r#"{"code":0}"#);
        assert_eq!(run(&operations, "Jam", None).await, r#"{"code":7,"errorMsg":"jammed"}"#);
        for wrong in [Some("-1"), Some("\"x\""), None] {
            let answer = run(&operations, "Double", wrong).await;
            assert!(answer.starts_with(r#"{"code":-1,"errorMsg":"the input is wrong"#), "{answer}");
        }
        assert!(run(&operations, "Dump", Some("20000")).await.contains("too large"));
        assert!(operations.begin(&path("Fly"), false, None).is_none());
    }

    #[test]
    fn a_failure_is_never_code_0_and_always_fits() {
        assert_eq!(OperationError::new(0, "x").code(), FAILED);
        assert_eq!(&*OperationError::new(3, "x".repeat(20_000)).body(), br#"{"code":3}"#);
    }
}
