//! A key in the state file.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::account::Account;
use crate::attestation::Conditions;
use crate::grant::Grant;
use crate::key::{Key, KeySpec, KeyState, MULTI_REGION_PREFIX, Material, Origin};
use crate::policy::{Policy, PolicyOf};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKey {
    id: String,
    spec: String,
    description: String,
    created: u64,
    state: StoredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    primary_region: Option<String>,
    /// Condition keys by AWS's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attestation: BTreeMap<String, String>,
    /// The document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external: Option<StoredExternal>,
    /// Nothing while it is to be imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    material_id: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    material: Option<Base64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<StoredMaterial>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Enabled,
    Disabled,
    PendingDeletion { deletion: u64, window: u16 },
}

/// The import of a key's material.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredExternal {
    material_id: Option<Base64>,
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMaterial {
    id: Base64,
    material: Base64,
}

/// Bytes that may be secret.
struct Base64(Zeroizing<Vec<u8>>);

impl StoredKey {
    pub(super) fn of(key: &Key) -> StoredKey {
        let bytes = |bytes: &[u8]| Base64(Zeroizing::new(bytes.to_vec()));
        let former = |material: &Arc<Material>| StoredMaterial {
            id: bytes(&material.id),
            material: bytes(material.bytes()),
        };
        StoredKey {
            id: key.id.clone(),
            spec: key.spec.as_str().to_owned(),
            description: key.description.clone(),
            created: key.created,
            state: match key.state {
                KeyState::Enabled => StoredState::Enabled,
                KeyState::Disabled => StoredState::Disabled,
                KeyState::PendingDeletion { deletion, window } => {
                    StoredState::PendingDeletion { deletion, window }
                }
            },
            primary_region: key.primary_region.clone(),
            attestation: key.attestation.texts(),
            policy: key.policy.as_ref().map(|policy| policy.text().to_owned()),
            grants: key.grants.clone(),
            external: match key.origin {
                Origin::AwsKms => None,
                Origin::External { material_id, expires } => {
                    Some(StoredExternal { material_id: material_id.map(|id| bytes(&id)), expires })
                }
            },
            material_id: key.material.as_ref().map(|material| bytes(&material.id)),
            material: key.material.as_ref().map(|material| bytes(material.bytes())),
            former: key.former.iter().map(former).collect(),
        }
    }

    pub(super) fn key(self, account: &Account) -> Result<Key, String> {
        let id = self.id.clone();
        self.understood(account).map_err(|error| format!("key {id}: {error}"))
    }

    fn understood(self, account: &Account) -> Result<Key, String> {
        let uuid = self.id.strip_prefix(MULTI_REGION_PREFIX).unwrap_or(&self.id);
        Uuid::try_parse(uuid).map_err(|_| "no key id")?;
        let spec = KeySpec::named(&self.spec).ok_or_else(|| format!("unknown spec {}", self.spec))?;
        let conditions = self.attestation.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let policy = self.policy.map(|text| Policy::parse(&text, PolicyOf::Key)).transpose()?;
        let restored = |id: &Base64, bytes| Material::restore(spec, id.id()?, bytes).map(Arc::new);
        let origin = match &self.external {
            None => Origin::AwsKms,
            Some(StoredExternal { material_id, expires }) => Origin::External {
                material_id: material_id.as_ref().map(Base64::id).transpose()?,
                expires: *expires,
            },
        };
        let material = match (self.material_id, self.material) {
            (Some(id), Some(Base64(bytes))) => Some(restored(&id, bytes)?),
            (None, None) if origin != Origin::AwsKms => None,
            _ => return Err("material is missing".to_owned()),
        };
        let former = self.former.into_iter().map(|stored| restored(&stored.id, stored.material.0));
        Ok(Key {
            arn: account.arn(&format!("key/{}", self.id)),
            spec,
            description: self.description,
            created: self.created,
            state: match self.state {
                StoredState::Enabled => KeyState::Enabled,
                StoredState::Disabled => KeyState::Disabled,
                StoredState::PendingDeletion { deletion, window } => {
                    KeyState::PendingDeletion { deletion, window }
                }
            },
            primary_region: self.primary_region,
            attestation: Conditions::parse(conditions)?,
            policy: policy.map(Arc::new),
            grants: self.grants,
            origin,
            material,
            former: former.collect::<Result<_, String>>()?,
            id: self.id,
        })
    }
}

impl Base64 {
    /// As an id of a material.
    fn id(&self) -> Result<[u8; 32], String> {
        self.0.as_slice().try_into().map_err(|_| "material id".to_owned())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The message must not quote the text: it is a secret.
        let bytes = BASE64.decode(&*text).map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Base64(Zeroizing::new(bytes)))
    }
}
