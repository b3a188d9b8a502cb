//! Views: lists of devices that people come back to, by name: what is looked for, and in which order.
//!
//! This is what is meant by a saved order of devices. A view is kept for a place in the organisation and shared by all who are
//! bound to exactly that place: what it looks for may name what those below or above do not see. An order by hand, device by
//! device, is not kept; a label that counts (`rank`) does that for who wants it.

use serde_json::json;
use vestibule_store::{StoreError, ViewRow};

use crate::caller::Caller;
use crate::platform::Platform;

/// Most views of one place.
const MAX_VIEWS: usize = 100;
const MAX_NAME: usize = 64;

/// Why a view is not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are as many as may be.
    #[error("there are {0} views of this place already")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Platform {
    /// The views of the place the caller is bound to, by name; there are 100 at most.
    pub async fn views(&self, by: &Caller) -> Result<Vec<ViewRow>, StoreError> {
        self.control().views(by.subtree().as_str()).await
    }

    /// The view of this name at the place the caller is bound to.
    pub async fn view(&self, name: &str, by: &Caller) -> Result<Option<ViewRow>, StoreError> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        self.control().view(by.subtree().as_str(), name).await
    }

    /// Keeps a view, in place of the one of this name; `query` is JSON of who keeps it.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn put_view(&self, name: &str, query: String, by: &Caller) -> Result<ViewRow, ViewError> {
        check_name(name)?;
        let row = ViewRow {
            org: by.subtree().as_str().to_owned(),
            name: name.to_owned(),
            query,
            actor: by.name().to_owned(),
            changed: self.clock().now_ms(),
        };
        if !self.control().put_view(row.clone(), MAX_VIEWS).await? {
            return Err(ViewError::Full(MAX_VIEWS));
        }
        self.auditor().note(by.name(), "view.put", by.subtree(), json!({"name": name}), true).await;
        Ok(row)
    }

    /// Removes a view; false when there is none.
    pub async fn remove_view(&self, name: &str, by: &Caller) -> Result<bool, StoreError> {
        if check_name(name).is_err() || !self.control().remove_view(by.subtree().as_str(), name).await? {
            return Ok(false);
        }
        self.auditor().note(by.name(), "view.remove", by.subtree(), json!({"name": name}), true).await;
        Ok(true)
    }
}

fn check_name(name: &str) -> Result<(), ViewError> {
    let invalid = |reason| Err(ViewError::Invalid { field: "name", reason });
    if name.is_empty() || name.len() > MAX_NAME {
        return invalid("must have 1 to 64 bytes");
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return invalid("must not have control characters, or white space around it");
    }
    Ok(())
}
