//! The device management platform: the heart that every family of devices meets in.
//!
//! It knows which devices exist ([`Device`]), whether they are there ([`Presence`]), what they reported
//! ([`Platform::report`], [`Platform::events`], [`Platform::follow`]), has them carry out operations
//! ([`Platform::invoke`]) and take values ([`Platform::set`]) and knows what their last steps were ([`Fact`]). It knows no wire format: an adapter translates its protocol into these calls, and
//! implements [`DeviceLink`] where the platform has to reach a device.

mod admission;
mod audit;
mod bulk;
mod caller;
mod catalogue;
mod certificates;
mod changes;
mod children;
mod clock;
mod config;
mod credentials;
mod demands;
mod describe;
mod device;
mod directive;
mod door;
mod enlist;
mod events;
mod facts;
mod find;
mod follow;
mod health;
mod history;
mod import;
mod invoke;
mod job;
mod json;
mod link;
mod notebook;
mod once;
mod operation_log;
mod org;
mod pass;
mod password;
mod past;
mod permission;
mod pictures;
mod platform;
mod presence;
mod principal;
mod queue;
mod rate;
mod records;
mod registration;
mod registry;
mod session;
mod set;
mod storage;
mod strangers;
mod suites;
mod token;
mod twin;
mod user;
mod view;
mod webhook;

pub use bulk::{BulkAction, BulkError};
pub use caller::Caller;
pub use certificates::{
    Acquired, AuthorityView, CertificateView, Certificates, CertificatesError, IssuedCertificate, LONGEST_CERTIFICATE,
    OverdueRoots,
};
pub use changes::{Change, Changes};
pub use children::ChildRefused;
pub use clock::{Clock, SystemClock};
pub use config::PlatformConfig;
pub use credentials::{Secrets, UpdateError};
pub use demands::{MAX_PRODUCT_RULES, ProductRuleError};
pub use describe::{Describe, DescribeError, Description};
pub use device::{Device, Family, LONGEST_WINDOW};
pub use directive::DirectError;
pub use events::{EventQuery, Report, ReportError};
pub use facts::{Fact, Step};
pub use find::{BadCursor, DeviceFilter, DeviceOrder, DevicePage, DeviceQuery, LabelFilter};
pub use follow::{Filter, Follow, Followed, Kinds};
pub use health::Health;
pub use history::{HistoryPage, HistoryQuery};
pub use import::{Import, ImportEnded, ImportRow, MAX_IMPORT, RowWrong};
pub use invoke::{Invoke, InvokeError, Outcome};
pub use job::{Job, JobKind, JobRefused, JobState, Tally, Trouble};
pub use link::{Answer, DeviceLink, Directive, NotSent, Operate, PassMessage, Reply, ReplyReceiver, SetAttribute};
pub use operation_log::OperationQuery;
pub use org::{OrgPath, OrgPathError};
pub use pass::{MAX_PASS, Pass, PassError, PassOutcome, PassQuery};
pub use past::{Past, PastLeaf, PastReport};
pub use permission::{Permission, Role};
pub use platform::{OpenError, Platform};
pub use presence::{Connection, ConnectionId, Presence, PresenceState};
pub use principal::{Principal, PrincipalError};
pub use queue::Waiting;
pub use records::Records;
pub use registration::{AddDeviceError, NewDevice};
pub use session::{LoginError, Session};
pub use set::{Set, SetError};
pub use storage::{Entrance, MediaStorage, Offer, OfferError, Offered, Wish};
pub use strangers::Stranger;
pub use suites::{Demand, ProvisionError, Provisioned, Provisioner, Suites};
pub use token::{NewToken, TokenError, TokenFile};
pub use twin::{Desired, Leaf, Reported, SetOutcome};
pub use user::NewUser;
pub use view::ViewError;
pub use webhook::{Webhook, WebhookError, WebhookSpec};

pub use vestibule_store::{
    AuditQuery, AuditRow, CodeUse, Credential, Credentials, DeadLetter, DeviceCertificateQuery, DeviceCertificateRow,
    DeviceId, DevicePath, Flags, Journal, MediaKind, MediaRow, Order, OverdueRow, Position, Record, RecordKind, Secret,
    StoreError, ViewRow, WebhookPlace,
};
pub use vestibule_tls::Purpose;
