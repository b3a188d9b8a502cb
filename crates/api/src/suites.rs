//! Which suites are open to a device, and what it is given to come in without its code.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{Demand, Device, Platform, ProductRuleError, ProvisionError, Suites};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, JsonBody, Nothing, Params, TheCaller, TheDevice};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::DeviceShape;

/// Which suites are open to a device.
#[derive(Serialize, ToSchema)]
#[schema(as = Suites)]
pub(crate) struct SuitesShape {
    /// The legacy ones, which are not confidential. They close by themselves once the device has come in by a modern one.
    legacy: bool,
    /// Those over plain TCP.
    plain: bool,
    /// What was said of the device itself: whether it has to show a certificate.
    certificate: DemandShape,
    /// Whether it has to, with what was said of its product: then neither legacy suites nor those over plain TCP let it in.
    certificate_demanded: bool,
}

impl SuitesShape {
    pub(crate) fn of(platform: &Platform, device: &Device) -> SuitesShape {
        SuitesShape {
            legacy: !device.is_modern(),
            plain: !device.is_tls_only(),
            certificate: Demand::of(device).into(),
            certificate_demanded: platform.demands_certificate(device),
        }
    }
}

/// Whether a device has to show a certificate.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CertificateDemand)]
pub(crate) enum DemandShape {
    /// As its product has to.
    Product,
    /// It has to.
    Demanded,
    /// It has not, whatever is said of its product.
    Optional,
}

impl From<Demand> for DemandShape {
    fn from(demand: Demand) -> DemandShape {
        match demand {
            Demand::AsProduct => DemandShape::Product,
            Demand::Demanded => DemandShape::Demanded,
            Demand::Optional => DemandShape::Optional,
        }
    }
}

fn demand(word: &str) -> Answer<Demand> {
    match word {
        "product" => Ok(Demand::AsProduct),
        "demanded" => Ok(Demand::Demanded),
        "optional" => Ok(Demand::Optional),
        _ => {
            let detail = "certificate must be demanded, optional or product.";
            Err(Problem::field(Kind::InvalidValue, "certificate", detail))
        }
    }
}

/// Which suites are to be open to a device; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuitesToSet {
    /// Whether the legacy ones are.
    legacy: Option<bool>,
    /// Whether those over plain TCP are.
    plain: Option<bool>,
    /// Whether the device has to show a certificate when it comes in.
    #[schema(value_type = Option<DemandShape>)]
    certificate: Option<String>,
}

/// Open suites to a device, or close them
///
/// A device that has come in by a modern suite is refused by the legacy ones: somebody may stand between. Opened again, they
/// stay so until it comes in by a modern one the next time.
///
/// Where a certificate is demanded, a device that never showed one comes in with its code or its ticket over TLS as long as it asks for
/// one in that run and is granted it; from then on with the certificate alone, or inside a window for enrolment, in which it
/// may ask again.
#[utoipa::path(
    put,
    path = "/v1/devices/{d}/suites",
    tag = "devices",
    params(DeviceInPath),
    request_body = SuitesToSet,
    responses(
        (status = 200, description = "It is so, durably", body = DeviceShape),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_device_suites(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(SuitesToSet { legacy, plain, certificate }): JsonBody<SuitesToSet>,
) -> Answer<Json<DeviceShape>> {
    let certificate = certificate.map(|word| demand(&word)).transpose()?;
    let suites = Suites { legacy, plain, certificate };
    shared.platform.set_suites(&device, suites, &caller).await?;
    Ok(Json(DeviceShape::of(&shared.platform, &device, &caller)))
}

/// What is demanded of the devices of a product.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProductRule {
    /// The product.
    product: String,
    /// Whether its devices have to show a certificate.
    certificate: bool,
}

/// The products of which something is demanded, by name; there are 1,000 at most.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProductRuleList {
    /// The rules.
    items: Vec<ProductRule>,
    /// Null: there is one page.
    #[schema(required = true)]
    next: Option<String>,
}

/// What is to be demanded of the devices of a product.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductRuleToSet {
    /// Whether they have to show a certificate.
    certificate: bool,
}

/// A product in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ProductInPath {
    /// The product, as devices are registered for it.
    #[param(min_length = 1, max_length = 128)]
    product: String,
}

/// The product that the path has.
pub(crate) struct TheProduct(String);

impl FromRequestParts<Arc<Shared>> for TheProduct {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<ProductInPath>::from_request_parts(parts, shared).await;
        let refused = |_| Problem::field(Kind::InvalidValue, "product", "A product is a text.");
        path.map(|Path(ProductInPath { product })| TheProduct(product)).map_err(refused)
    }
}

/// List what is demanded of products
#[utoipa::path(
    get,
    path = "/v1/product-rules",
    tag = "devices",
    responses((status = 200, description = "The products of which something is demanded", body = ProductRuleList)),
)]
pub(crate) async fn list_product_rules(
    State(shared): State<Arc<Shared>>,
    _: Params<Nothing>,
) -> Answer<Json<ProductRuleList>> {
    let rule = |product| ProductRule { product, certificate: true };
    let items = shared.platform.certified_products().into_iter().map(rule).collect();
    Ok(Json(ProductRuleList { items, next: None }))
}

/// Demand a certificate of the devices of a product, or demand none
///
/// It counts from the next time that a device comes in, for those too that are registered later. What is said of a device itself
/// goes before it.
#[utoipa::path(
    put,
    path = "/v1/product-rules/{product}",
    tag = "devices",
    params(ProductInPath),
    request_body = ProductRuleToSet,
    responses(
        (status = 200, description = "It is so, durably", body = ProductRule),
        (status = 422, description = "There are as many rules as may be, or it is no product",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_product_rule(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheProduct(product): TheProduct,
    _: Params<Nothing>,
    JsonBody(ProductRuleToSet { certificate }): JsonBody<ProductRuleToSet>,
) -> Answer<Json<ProductRule>> {
    let kept = shared.platform.demand_certificate_of(&product, certificate, &caller).await;
    kept.map_err(|error| match error {
        ProductRuleError::Store(error) => Problem::from(error),
        other => Problem::field(Kind::InvalidValue, "product", format!("product: {other}.")),
    })?;
    Ok(Json(ProductRule { product, certificate }))
}

/// What a device is to be given, in hexadecimal digits but for its identity.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProvisionedDevice {
    /// The identity of the device.
    #[schema(min_length = 32, max_length = 32)]
    dev_id: String,
    /// The name of its ticket.
    #[schema(min_length = 32, max_length = 32)]
    ticket: String,
    /// The secret that goes with it: shown this once.
    #[schema(min_length = 96, max_length = 96, format = Password)]
    psk: String,
}

/// Give a device what it needs to come in without its code
///
/// For devices without TLS, on the factory line or by the tool that installs them. What was agreed with the device is void
/// and its connection ends.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/provision",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "It is kept, durably", body = ProvisionedDevice),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Devices are not provisioned here",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn provision_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<Json<ProvisionedDevice>> {
    let provisioned = shared.platform.provision(&device, &caller).await.map_err(|error| match error {
        ProvisionError::Store(error) => Problem::from(error),
        error @ ProvisionError::Off => Problem::new(Kind::InvalidValue, error.to_string()),
    })?;
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    Ok(Json(ProvisionedDevice {
        dev_id: provisioned.dev_id,
        ticket: hex(&provisioned.ticket),
        psk: hex(provisioned.psk.expose()),
    }))
}
