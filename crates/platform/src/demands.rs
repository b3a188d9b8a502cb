//! Of which devices a certificate is demanded (osap-wire 13.3, TLS profile 6): what was said of a device, or else of its product.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::json;
use vestibule_store::{Control, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::org::OrgPath;
use crate::platform::{Platform, to_the_end};

/// The most products of which something is demanded.
pub const MAX_PRODUCT_RULES: usize = 1_000;
const MAX_PRODUCT: usize = 128;

/// The products whose devices have to show a certificate.
#[derive(Default)]
pub(crate) struct Demands {
    products: RwLock<BTreeSet<String>>,
    /// Held over a commit: what is in memory is what was written last.
    turn: tokio::sync::Mutex<()>,
}

impl Demands {
    pub(crate) async fn load(control: &Control) -> Result<Demands, StoreError> {
        let rules = control.product_rules(MAX_PRODUCT_RULES as i64).await?;
        let products = rules.into_iter().filter_map(|(product, demanded)| demanded.then_some(product)).collect();
        Ok(Demands { products: RwLock::new(products), turn: tokio::sync::Mutex::default() })
    }
}

/// Why a rule was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ProductRuleError {
    /// It is no product.
    #[error("a product has 1 to 128 bytes")]
    Invalid,
    /// There are as many as may be.
    #[error("there are rules for {MAX_PRODUCT_RULES} products, which is the most")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Platform {
    /// Whether the device has to show a certificate when it comes in.
    pub fn demands_certificate(&self, device: &Device) -> bool {
        let of_product = |product: &String| self.demands().products.read().contains(product);
        device.certificate().unwrap_or_else(|| device.product.as_ref().is_some_and(of_product))
    }

    /// The products whose devices have to show a certificate, in the order of their names.
    pub fn certified_products(&self) -> Vec<String> {
        self.demands().products.read().iter().cloned().collect()
    }

    /// Demands a certificate of the devices of a product, those to come included, or demands none any more; durably. It counts from
    /// a device's next run at the LBS. What was said of a device itself goes before it.
    ///
    /// # Errors
    /// [`ProductRuleError`].
    pub async fn demand_certificate_of(
        self: &Arc<Self>,
        product: &str,
        demanded: bool,
        by: &Caller,
    ) -> Result<(), ProductRuleError> {
        if product.is_empty() || product.len() > MAX_PRODUCT {
            return Err(ProductRuleError::Invalid);
        }
        let (platform, product, by) = (Arc::clone(self), product.to_owned(), by.clone());
        to_the_end(async move {
            let demands = platform.demands();
            let _turn = demands.turn.lock().await;
            let (is_known, count) = {
                let products = demands.products.read();
                (products.contains(&product), products.len())
            };
            if demanded && !is_known && count >= MAX_PRODUCT_RULES {
                return Err(ProductRuleError::TooMany);
            }
            platform.control().set_product_rule(&product, demanded.then_some(true)).await?;
            if demanded {
                demands.products.write().insert(product.clone());
            } else {
                demands.products.write().remove(&product);
            }
            let detail = json!({"product": product, "certificate": demanded});
            platform.auditor().note(by.name(), "product.certificate", &OrgPath::root(), detail, true).await;
            Ok(())
        })
        .await
    }
}
