//! The Cedar schema, and the conversion of questions into Cedar's terms.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema,
    Validator,
};
use key_broker_core::{Action, EncryptionContext, KeyId, Principal};

use super::Question;
use super::multi_region::name_of;
use crate::attestation::{Measurements, PlatformKind};
use crate::named_key::NamedKey;

/// The schema, in Cedar's own form (<https://docs.cedarpolicy.com/schema/human-readable-schema.html>); docs/policy.md shows it.
pub(super) const SCHEMA: &str = include_str!("schema.cedarschema");

/// Validates policies against the schema.
pub(super) static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    Validator::new(Schema::from_cedarschema_str(SCHEMA).expect("the schema of this build is one").0)
});

/// Cedar's entity types, parsed once.
pub(super) struct EntityNames {
    workload: EntityTypeName,
    unknown: EntityTypeName,
    action: EntityTypeName,
    key: EntityTypeName,
    alias: EntityTypeName,
    encryption_context: EntityUid,
}

impl EntityNames {
    pub(super) fn new() -> Self {
        let name = |text| EntityTypeName::from_str(text).expect("a plain identifier is an entity type name");
        Self {
            workload: name(WORKLOAD),
            unknown: name(UNKNOWN),
            action: name("Action"),
            key: name(KEY),
            alias: name(ALIAS),
            encryption_context: EntityUid::from_type_name_and_id(
                name(ENCRYPTION_CONTEXT),
                EntityId::new("request"),
            ),
        }
    }

    /// The question and its entities, with the key in `aliases`; `None` if Cedar rejects it.
    pub(super) fn request(&self, question: &Question<'_>, aliases: &[KeyId]) -> Option<(Request, Entities)> {
        let resource = self.resource(question.key, aliases)?;
        let facts = &question.facts;
        let pairs = facts.encryption_context.into_iter().flat_map(EncryptionContext::pairs);
        let tags: HashMap<_, _> = pairs
            .map(|(name, value)| (name.clone(), RestrictedExpression::new_string(value.clone())))
            .collect();
        let context_entity = Entity::new_with_tags(self.encryption_context.clone(), [], [], tags).ok()?;
        let long = |n: u64| RestrictedExpression::new_long(i64::try_from(n).unwrap_or(i64::MAX));
        let recipient = match facts.recipient {
            Some(measurements) => Some(("recipient".to_owned(), recipient(measurements)?)),
            None => None,
        };
        let said = [
            ("transport".to_owned(), RestrictedExpression::new_string(facts.transport.name().to_owned())),
            ("messages".to_owned(), long(facts.messages)),
            ("bytes".to_owned(), long(facts.bytes)),
            (
                "encryptionContext".to_owned(),
                RestrictedExpression::new_entity_uid(self.encryption_context.clone()),
            ),
        ];
        let context = Context::from_pairs(said.into_iter().chain(recipient)).ok()?;
        let request = Request::new(
            self.principal(question.principal),
            self.action(question.action),
            resource.uid(),
            context,
            None,
        );
        let entities = Entities::from_entities([resource, context_entity], None).ok()?;
        Some((request.ok()?, entities))
    }

    fn principal(&self, principal: &Principal) -> EntityUid {
        let kind = match principal {
            Principal::Workload(_) => &self.workload,
            Principal::Unknown => &self.unknown,
        };
        EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(principal.as_str()))
    }

    fn action(&self, action: Action) -> EntityUid {
        EntityUid::from_type_name_and_id(self.action.clone(), EntityId::new(action.name()))
    }

    fn resource(&self, key: Option<&NamedKey>, aliases: &[KeyId]) -> Option<Entity> {
        let arn = key.and_then(|key| key.arn.as_ref());
        let (id, account, region) = match (arn, key) {
            (Some(arn), _) => (name_of(arn), arn.account_id(), arn.region()),
            // As far as the broker knows it stands for no key, so no policy that names a key applies to it.
            (None, Some(_)) => (UNKNOWN_KEY.into(), ANY_KEY, ANY_KEY),
            (None, None) => (ANY_KEY.into(), ANY_KEY, ANY_KEY),
        };
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let attributes =
            HashMap::from([("account".to_owned(), text(account)), ("region".to_owned(), text(region))]);
        let parent = |alias: &KeyId| {
            EntityUid::from_type_name_and_id(self.alias.clone(), EntityId::new(alias.as_str()))
        };
        let parents: HashSet<_> = aliases.iter().map(parent).collect();
        let uid = EntityUid::from_type_name_and_id(self.key.clone(), EntityId::new(id));
        Entity::new(uid, attributes, parents).ok()
    }
}

/// The schema's `Recipient`.
fn recipient(measurements: &Measurements) -> Option<RestrictedExpression> {
    let text = |text: String| RestrictedExpression::new_string(text);
    let name = match measurements.kind() {
        PlatformKind::Enclave => "pcr",
        PlatformKind::NitroTpm => "nitroTpmPcr",
    };
    let module_id = ("moduleId".to_owned(), text(measurements.module_id().to_owned()));
    let image = measurements.image_sha384().map(|digest| ("imageSha384".to_owned(), text(digest)));
    let pcrs = measurements.pcrs().map(|(index, value)| (format!("{name}{index}"), text(value)));
    RestrictedExpression::new_record([module_id].into_iter().chain(image).chain(pcrs)).ok()
}

pub(super) const WORKLOAD: &str = "Workload";
pub(super) const UNKNOWN: &str = "Unknown";
pub(super) const ENCRYPTION_CONTEXT: &str = "EncryptionContext";
pub(super) const KEY: &str = "Key";
pub(super) const ALIAS: &str = "Alias";
/// The resource of a call that names no key. It is no ARN.
pub(super) const ANY_KEY: &str = "*";
/// The resource of a call whose name for the key stands for none.
const UNKNOWN_KEY: &str = "unknown";
