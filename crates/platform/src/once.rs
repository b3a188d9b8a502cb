//! Requests that are carried out once however often they come: idempotency keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use vestibule_store::{Begun, StoreError};

use crate::caller::Caller;
use crate::invoke::{InvokeError, Outcome, Request};
use crate::platform::Platform;

/// How long a key is remembered, in milliseconds; by the wall clock, which is the one that goes on behind a restart.
const REMEMBERED: i64 = 24 * 60 * 60 * 1_000;

/// What a caller calls one of his requests to a device.
pub(crate) struct Key {
    /// Callers and devices do not share keys.
    scope: String,
    name: String,
    /// Of all that was asked.
    digest: [u8; 32],
}

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: Uuid,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Key {
    pub(crate) fn of(name: &str, request: &Request, by: &Caller) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        let path = &request.path;
        let input = request.input.as_deref().map_or("", RawValue::get);
        for part in [&*path.resource, &*path.index, &*path.area, &*path.name, input] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(&request.deadline.as_millis().to_be_bytes());
        context.update(&request.queue.map_or(0, |length| length.as_millis()).to_be_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        // By the id: a name is free again when its token is removed. No name looks like one.
        let caller = by.id().map_or_else(|| by.name().to_owned(), |id| id.to_string());
        Key { scope: format!("invoke {} {caller}", request.device.id), name: name.to_owned(), digest }
    }
}

/// Keys whose requests are under way in this process, with what was asked. One that the store has as such and that is not
/// here was left by a process that ended, or by a store that failed, in the middle.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashMap<(String, String), [u8; 32]>>);

/// A key under way; no longer when dropped.
struct UnderWay<'a> {
    running: &'a Running,
    key: (String, String),
}

impl Running {
    fn enter(&self, key: &Key) -> Result<UnderWay<'_>, InvokeError> {
        let name = (key.scope.clone(), key.name.clone());
        match self.0.lock().entry(name.clone()) {
            Entry::Occupied(first) if *first.get() != key.digest => Err(InvokeError::KeyTaken),
            Entry::Occupied(_) => Err(InvokeError::KeyUnderWay),
            Entry::Vacant(free) => {
                free.insert(key.digest);
                Ok(UnderWay { running: self, key: name })
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.key);
    }
}

impl Platform {
    /// Performs the request, unless one with this key came before: then it is answered as that one was.
    pub(crate) async fn once(
        self: &Arc<Self>,
        key: Key,
        request: Request,
        by: &Caller,
    ) -> Result<(Uuid, Outcome), InvokeError> {
        // Who comes second leaves the store alone: what it did there, the first might take for its own.
        let _under_way = self.running_keys().enter(&key)?;
        let Key { scope, name, digest } = key;
        let now = self.clock().now_ms();
        let performed = match self.control().begin_key(&scope, &name, digest, now, now + REMEMBERED).await? {
            Begun::New => self.perform(request, by).await,
            Begun::Running { digest: first } | Begun::Done { digest: first, .. } if first != digest => {
                return Err(InvokeError::KeyTaken);
            }
            Begun::Running { .. } => {
                // Whether it was carried out, nobody can know.
                let id = Uuid::now_v7();
                self.conclude(&request, id, None, &Outcome::Unknown, Duration::ZERO).await;
                Ok((id, Outcome::Unknown))
            }
            Begun::Done { answer, .. } => {
                let kept: Kept = serde_json::from_str(&answer).map_err(|_| StoreError::Corrupt("kept answer"))?;
                return Ok((kept.id, kept.outcome));
            }
        };
        let kept = match &performed {
            // Nothing was sent, so the caller may try again.
            Ok((_, Outcome::Offline)) | Err(_) => self.control().forget_key(&scope, &name).await,
            Ok((id, outcome)) => {
                let answer = answer(*id, outcome.clone());
                self.control().finish_key(&scope, &name, &answer).await
            }
        };
        if let Err(error) = kept {
            tracing::error!(%error, "the answer to a request with an idempotency key is not kept");
        }
        performed
    }
}

fn answer(id: Uuid, outcome: Outcome) -> String {
    serde_json::to_string(&Kept { id, outcome }).expect("text and numbers are JSON")
}
