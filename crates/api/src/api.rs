//! The API: its routes, and what their handlers share.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use tokio::sync::{Semaphore, watch};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;
use vestibule_platform::{Permission, Platform};

use crate::access::Gate;
use crate::config::ApiConfig;
use crate::hooks::Hooks;
use crate::routes::Routes;
use crate::{
    attributes, audit, authority, bulk, certificates, describe, devices, directives, events, export, health, history,
    imports, openapi, operations, page, pass, problems, queue, request, sessions, strangers, stream, suites, tokens,
    uploads, users, views, webhooks,
};

/// What the handlers share.
pub(crate) struct Shared {
    pub(crate) platform: Arc<Platform>,
    pub(crate) config: ApiConfig,
    pub(crate) render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// One permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit for each event stream that may be open.
    pub(crate) streams: Arc<Semaphore>,
    /// Becomes true once, when the server shuts down.
    pub(crate) closing: watch::Sender<bool>,
    /// Who outside is told what.
    pub(crate) hooks: Hooks,
    /// The OpenAPI document as JSON text.
    pub(crate) document: OnceLock<Bytes>,
}

/// The HTTP API of one platform. Cheap to clone; clones share their limits.
#[derive(Clone)]
pub struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) router: Router,
}

impl Api {
    /// The API of a platform. `render_metrics` gives the Prometheus text of `/metrics`.
    pub fn new(
        platform: Arc<Platform>,
        config: ApiConfig,
        render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Api {
        let gate = Gate::of(Arc::clone(&platform));
        let shared = Arc::new(Shared {
            connections: Arc::new(Semaphore::new(config.max_connections)),
            streams: Arc::new(Semaphore::new(config.max_streams)),
            closing: watch::Sender::new(false),
            hooks: Hooks::new(Arc::clone(&platform), config.webhooks.clone()),
            document: OnceLock::new(),
            platform,
            config,
            render_metrics,
        });
        let (router, document) = routes(gate);
        shared.document.get_or_init(|| Bytes::from(openapi::to_json(&document)));
        let router = router
            .fallback(request::unknown_route)
            .method_not_allowed_fallback(request::method_not_allowed)
            .layer(DefaultBodyLimit::max(shared.config.max_body_bytes))
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), request::pass))
            .with_state(Arc::clone(&shared));
        Api { shared, router }
    }

    /// Tells webhooks what the journal holds, until the server shuts down and how far each was told is noted. To be run
    /// once, beside the server.
    pub async fn deliver(self) {
        self.shared.hooks.run(self.shared.closing.subscribe()).await;
    }

    /// Adds routes of an adapter. They pass what every request passes, except that they bound their bodies and their time
    /// themselves: an upload takes as long as it takes. Each asks for its permission or its ticket itself.
    pub fn with_adapter(self, routes: Router) -> Api {
        let pass = middleware::from_fn_with_state(Arc::clone(&self.shared), request::pass_unhurried);
        let routes = routes.method_not_allowed_fallback(request::method_not_allowed).layer(pass);
        Api { router: self.router.merge(routes), shared: self.shared }
    }
}

/// Every route with the permission it asks for, and the document that describes them.
pub(crate) fn routes(gate: Gate) -> (Router<Arc<Shared>>, OpenApi) {
    use crate::webhooks::letters;
    use Permission::{
        AttributesRead, AttributesWrite, AuditRead, AuthorityManage, DevicesControl, DevicesRead, DevicesWrite,
        EventsRead, MediaRead, MediaWrite, MetricsRead, OperationsInvoke, OperationsRead, PassRead, PassUse,
        StrangersRead, TokensManage, UsersManage, WebhooksManage,
    };
    Routes::new(openapi::base(), gate)
        .needs(DevicesRead, routes!(devices::list_devices))
        .needs(DevicesWrite, routes!(devices::register_device))
        .needs(DevicesRead, routes!(devices::show_device))
        .needs(DevicesWrite, routes!(devices::remove_device))
        .needs(DevicesWrite, routes!(describe::describe_device))
        .needs(DevicesRead, routes!(devices::export::export_devices))
        .needs(DevicesWrite, routes!(imports::import_devices))
        .needs(DevicesWrite, routes!(imports::list_imports))
        .needs(DevicesWrite, routes!(imports::show_import))
        .needs(DevicesWrite, routes!(imports::cancel_import))
        .needs(DevicesRead, routes!(views::list_views))
        .needs(DevicesRead, routes!(views::show_view))
        .needs(DevicesControl, routes!(views::put_view))
        .needs(DevicesControl, routes!(views::remove_view))
        .needs(DevicesControl, routes!(bulk::change_devices))
        .needs(DevicesControl, routes!(bulk::list_bulk))
        .needs(DevicesControl, routes!(bulk::show_bulk))
        .needs(DevicesControl, routes!(bulk::cancel_bulk))
        .needs(DevicesControl, routes!(devices::open_enrolment))
        .needs(DevicesControl, routes!(devices::disable_device))
        .needs(DevicesControl, routes!(devices::enable_device))
        .needs(DevicesWrite, routes!(devices::rotate_device))
        .needs(DevicesWrite, routes!(suites::provision_device))
        .needs(DevicesWrite, routes!(suites::set_device_suites))
        .needs(AuthorityManage, routes!(suites::list_product_rules))
        .needs(AuthorityManage, routes!(suites::set_product_rule))
        .needs(DevicesRead, routes!(devices::explain_device))
        .needs(DevicesRead, routes!(devices::list_children))
        .needs(StrangersRead, routes!(strangers::list_strangers))
        .needs(DevicesWrite, routes!(directives::redirect_device))
        .needs(DevicesControl, routes!(directives::force_device_offline))
        .needs(DevicesControl, routes!(directives::set_device_keep_alive))
        .needs(DevicesControl, routes!(directives::silence_device))
        .needs(EventsRead, routes!(events::list_events))
        .needs(EventsRead, routes!(stream::stream_events))
        .needs(EventsRead, routes!(export::export_events))
        .needs(AttributesRead, routes!(attributes::list_attributes))
        .needs(AttributesRead, routes!(stream::stream_attributes))
        .needs(AttributesRead, routes!(export::export_attributes))
        .needs(AttributesRead, routes!(attributes::show_attribute))
        .needs(AttributesRead, routes!(history::list_history))
        .needs(AttributesWrite, routes!(attributes::set_attribute))
        .needs(OperationsInvoke, routes!(operations::invoke_operation))
        .needs(OperationsRead, routes!(operations::list_operations))
        .needs(OperationsRead, routes!(queue::list_queue))
        .needs(OperationsInvoke, routes!(queue::cancel_waiting))
        .needs(PassUse, routes!(pass::pass_message))
        .needs(PassRead, routes!(pass::list_passed))
        .needs(PassRead, routes!(pass::stream_passed))
        .needs(WebhooksManage, routes!(webhooks::list_webhooks))
        .needs(WebhooksManage, routes!(webhooks::add_webhook))
        .needs(WebhooksManage, routes!(webhooks::show_webhook))
        .needs(WebhooksManage, routes!(webhooks::change_webhook))
        .needs(WebhooksManage, routes!(webhooks::remove_webhook))
        .needs(WebhooksManage, routes!(webhooks::enable_webhook))
        .needs(WebhooksManage, routes!(webhooks::disable_webhook))
        .needs(WebhooksManage, routes!(webhooks::test_webhook))
        .needs(WebhooksManage, routes!(letters::list_dead_letters))
        .needs(WebhooksManage, routes!(letters::replay_dead_letters))
        .needs(MediaWrite, routes!(uploads::offer_upload))
        .needs(MediaRead, routes!(uploads::offer_download))
        .needs(AuditRead, routes!(audit::list_audit))
        .needs(TokensManage, routes!(tokens::make_token))
        .needs(TokensManage, routes!(tokens::list_tokens))
        .needs(TokensManage, routes!(tokens::remove_token))
        .needs(UsersManage, routes!(users::add_user))
        .needs(UsersManage, routes!(users::list_users))
        .needs(UsersManage, routes!(users::remove_user))
        .needs(UsersManage, routes!(users::set_user_password))
        .needs(AuthorityManage, routes!(authority::show_authority))
        .needs(AuthorityManage, routes!(authority::roll_authority))
        .needs(AuthorityManage, routes!(authority::retire_authority))
        .needs(AuthorityManage, routes!(authority::list_overdue))
        .needs(AuthorityManage, routes!(certificates::list_certificates))
        .needs(DevicesRead, routes!(certificates::list_device_certificates))
        .needs(DevicesWrite, routes!(certificates::issue_certificate))
        .needs(DevicesWrite, routes!(certificates::revoke_certificates))
        .open(routes!(sessions::log_in))
        .known(routes!(sessions::show_session))
        .known(routes!(sessions::log_out))
        .known(routes!(sessions::change_password))
        .needs(MetricsRead, routes!(health::metrics))
        .open(routes!(health::alive))
        .open(routes!(health::ready))
        .open(routes!(openapi::document))
        .open(routes!(problems::explain_problem))
        .open(routes!(page::live_page))
        .finish()
}
