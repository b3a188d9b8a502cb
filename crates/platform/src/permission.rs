//! What there is to be permitted, and which role is permitted what.

use serde::{Deserialize, Serialize};

/// A right that an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// See devices, their presence and their connection facts.
    DevicesRead,
    /// Register, describe, move and remove devices, give them other codes, send them to other hosts.
    DevicesWrite,
    /// Shut devices out and let them in, open enrolment windows, direct their connections.
    DevicesControl,
    /// See what devices reported.
    EventsRead,
    /// See the attributes of devices.
    AttributesRead,
    /// Wish attributes to have values.
    AttributesWrite,
    /// Have devices carry out operations.
    OperationsInvoke,
    /// See which operations were carried out, by whom, and how they ended.
    OperationsRead,
    /// See messages that pass to and from devices as they are.
    PassRead,
    /// Send messages through to devices as they are.
    PassUse,
    /// See the pictures and files of devices.
    MediaRead,
    /// Have pictures and files of devices sent.
    MediaWrite,
    /// See who did what.
    AuditRead,
    /// See, make and remove tokens.
    TokensManage,
    /// See, make and remove users, and give them other passwords.
    UsersManage,
    /// See, add, change and remove webhooks, which tell of all devices, and have them told again what they could not be told.
    WebhooksManage,
    /// See the platform's certificates, replace its roots, and see which certificates all devices have.
    AuthorityManage,
    /// See metrics, which are of the platform as a whole.
    MetricsRead,
    /// Speak with other applications over MQTT, where no topic is a device's. What the platform says there goes by the other
    /// rights.
    MqttUse,
    /// See which serials that nobody has registered have asked to be let in.
    StrangersRead,
}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Permission; 20] = [
        Permission::DevicesRead,
        Permission::DevicesWrite,
        Permission::DevicesControl,
        Permission::EventsRead,
        Permission::AttributesRead,
        Permission::AttributesWrite,
        Permission::OperationsInvoke,
        Permission::OperationsRead,
        Permission::PassRead,
        Permission::PassUse,
        Permission::MediaRead,
        Permission::MediaWrite,
        Permission::AuditRead,
        Permission::TokensManage,
        Permission::UsersManage,
        Permission::WebhooksManage,
        Permission::AuthorityManage,
        Permission::MetricsRead,
        Permission::MqttUse,
        Permission::StrangersRead,
    ];

    /// The permission's name in the API and in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::DevicesRead => "devices_read",
            Permission::DevicesWrite => "devices_write",
            Permission::DevicesControl => "devices_control",
            Permission::EventsRead => "events_read",
            Permission::AttributesRead => "attributes_read",
            Permission::AttributesWrite => "attributes_write",
            Permission::OperationsInvoke => "operations_invoke",
            Permission::OperationsRead => "operations_read",
            Permission::PassRead => "pass_read",
            Permission::PassUse => "pass_use",
            Permission::MediaRead => "media_read",
            Permission::MediaWrite => "media_write",
            Permission::AuditRead => "audit_read",
            Permission::TokensManage => "tokens_manage",
            Permission::UsersManage => "users_manage",
            Permission::WebhooksManage => "webhooks_manage",
            Permission::AuthorityManage => "authority_manage",
            Permission::MetricsRead => "metrics_read",
            Permission::MqttUse => "mqtt_use",
            Permission::StrangersRead => "strangers_read",
        }
    }

    /// Whether it is about the platform as a whole: who is bound to a part of the organisation does not have it.
    pub fn is_of_the_whole(self) -> bool {
        matches!(
            self,
            Permission::WebhooksManage
                | Permission::AuthorityManage
                | Permission::MetricsRead
                | Permission::MqttUse
                | Permission::StrangersRead
        )
    }
}

/// What somebody is there for: a fixed set of permissions. Each role may do what the one before it may, and more.
///
/// | | viewer | operator | admin |
/// | --- | --- | --- | --- |
/// | see devices, events, attributes, operations, passed messages, pictures and files | yes | yes | yes |
/// | have devices do something: operations, desired values, messages, directives, disable and enable, enrolment; keep views | | yes | yes |
/// | have pictures and files of devices sent | | yes | yes |
/// | register, describe, move, rotate, redirect and remove devices | | | yes |
/// | see the audit; manage tokens and people | | | yes |
/// | see who asks to be let in and is not registered (only with the whole organisation) | | | yes |
/// | manage webhooks (only with the whole organisation) | | | yes |
/// | see and roll the platform's authorities (only with the whole organisation) | | | yes |
/// | see metrics (only with the whole organisation) | yes | yes | yes |
/// | speak with other applications over MQTT (only with the whole organisation) | | yes | yes |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Sees, and has devices do something.
    Operator,
    /// Does everything.
    Admin,
}

impl Role {
    /// Every role, from the one that may least.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// The role's name in the API and in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Whether the role has this permission. Written out for each, so that a new permission is decided about.
    pub fn has(self, permission: Permission) -> bool {
        let least = match permission {
            Permission::DevicesRead
            | Permission::EventsRead
            | Permission::AttributesRead
            | Permission::OperationsRead
            | Permission::PassRead
            | Permission::MediaRead
            | Permission::MetricsRead => Role::Viewer,
            Permission::DevicesControl
            | Permission::AttributesWrite
            | Permission::OperationsInvoke
            | Permission::PassUse
            | Permission::MediaWrite
            | Permission::MqttUse => Role::Operator,
            Permission::DevicesWrite
            | Permission::AuditRead
            | Permission::TokensManage
            | Permission::UsersManage
            | Permission::StrangersRead
            | Permission::WebhooksManage
            | Permission::AuthorityManage => Role::Admin,
        };
        self >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_one_before_it_may_and_more() {
        let count = |role: Role| Permission::ALL.iter().filter(|permission| role.has(**permission)).count();
        assert!(count(Role::Viewer) < count(Role::Operator) && count(Role::Operator) < count(Role::Admin));
        assert_eq!(count(Role::Admin), Permission::ALL.len());
        for permission in Permission::ALL {
            assert!(Role::Admin.has(permission));
            assert!(!Role::Viewer.has(permission) || Role::Operator.has(permission), "{permission:?}");
        }
    }

    #[test]
    fn a_role_is_known_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("Admin"), None);
    }
}
