//! Whom AWS takes the broker for: the `userIdentity` of every KMS record.

use key_broker_core::{KeyArn, KeyId, partition_of};

use super::{IdentityKind, SessionContext, SessionIssuer, UserIdentity};

/// The broker's AWS principal, as sts:GetCallerIdentity tells it
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCaller {
    /// The account: 12 digits.
    pub account_id: String,
    /// The ARN of the user or role session.
    pub arn: String,
    /// The unique id; `ROLE_ID:SESSION` for a role session.
    pub user_id: String,
    /// The region of the KMS endpoint.
    pub region: String,
    /// The host of the KMS endpoint.
    pub kms_host: String,
    /// The host's own address on the way to KMS. Behind NAT, CloudTrail has another.
    pub source_address: String,
}

impl AwsCaller {
    /// The AWS partition that the caller is in, as its ARN says.
    fn partition(&self) -> &str {
        match self.arn.split(':').nth(1) {
            Some(partition) if !partition.is_empty() => partition,
            _ => partition_of(&self.region),
        }
    }

    /// The ARN of the KMS key that `key` names, where that alone tells it: a key ARN as it is, a key id in the caller's own partition,
    /// region and account.
    #[must_use]
    pub fn key_arn(&self, key: &KeyId) -> Option<KeyArn> {
        if key.as_str().starts_with("arn:") {
            return KeyArn::parse(key.as_str());
        }
        if key.is_alias() {
            return None;
        }
        let (partition, id) = (self.partition(), key.as_str());
        KeyArn::parse(&format!("arn:{partition}:kms:{}:{}:key/{id}", self.region, self.account_id))
    }

    /// The identity in the form of CloudTrail
    /// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html>).
    /// `access_key_id` is the key that signed the very call.
    #[must_use]
    pub fn identity<'a>(&'a self, access_key_id: Option<&'a str>) -> UserIdentity<'a> {
        let (kind, user_name, session_context) = self.kind();
        UserIdentity {
            kind: kind.name().into(),
            principal_id: Some((&self.user_id).into()),
            arn: Some((&self.arn).into()),
            account_id: Some((&self.account_id).into()),
            access_key_id: access_key_id.map(Into::into),
            user_name: user_name.map(Into::into),
            session_context,
            ..UserIdentity::default()
        }
    }

    fn kind(&self) -> (IdentityKind, Option<&str>, Option<SessionContext<'_>>) {
        let resource = self.arn.splitn(6, ':').nth(5).unwrap_or_default();
        let mut parts = resource.split('/');
        match parts.next() {
            Some("assumed-role") => {
                let session_issuer = SessionIssuer {
                    kind: "Role".into(),
                    principal_id: self.user_id.split(':').next().unwrap_or_default().into(),
                    account_id: (&self.account_id).into(),
                    user_name: parts.next().unwrap_or_default().into(),
                };
                (IdentityKind::AssumedRole, None, Some(SessionContext { session_issuer }))
            }
            Some("user") => (IdentityKind::IAMUser, parts.next_back(), None),
            Some("root") => (IdentityKind::Root, None, None),
            Some("federated-user") => (IdentityKind::FederatedUser, None, None),
            _ => (IdentityKind::Unknown, None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    //! STS's three answers become CloudTrail's identities, with nothing invented.

    use super::*;

    fn identity(arn: &str, user_id: &str) -> String {
        let caller = AwsCaller {
            account_id: "111122223333".into(),
            arn: arn.into(),
            user_id: user_id.into(),
            region: "us-west-2".into(),
            kms_host: "kms.us-west-2.amazonaws.com".into(),
            source_address: "127.0.0.1".into(),
        };
        serde_json::to_string(&caller.identity(Some("AKIAEXAMPLE"))).expect("serializes")
    }

    #[test]
    fn a_key_arn_is_told_by_the_id_alone_or_not_at_all() {
        let of = |caller: &str, key: &str| {
            let caller = AwsCaller {
                account_id: "111122223333".into(),
                arn: caller.into(),
                user_id: "AIDAEXAMPLE".into(),
                region: "eusc-de-east-1".into(),
                kms_host: String::new(),
                source_address: String::new(),
            };
            let arn = caller.key_arn(&KeyId::parse(key).expect(key));
            arn.map(|arn| arn.as_str().to_owned())
        };
        let role = "arn:aws-new:sts::111122223333:assumed-role/broker/pod-1";
        let new = "arn:aws-new:kms:eusc-de-east-1:111122223333:key/1234-ab";
        assert_eq!(of(role, "1234-ab").as_deref(), Some(new), "AWS says which partition it is");
        let by_region = "arn:aws-eusc:kms:eusc-de-east-1:111122223333:key/1234-ab";
        assert_eq!(of("who knows", "1234-ab").as_deref(), Some(by_region));
        let other = "arn:aws:kms:eu-west-1:444455556666:key/1234-ab";
        assert_eq!(of(role, other).as_deref(), Some(other));
        assert_eq!(of(role, "alias/dev"), None);
        assert_eq!(of(role, "arn:aws-new:kms:eusc-de-east-1:111122223333:alias/dev"), None);
    }

    #[test]
    fn roles_users_and_root() {
        let identities = [
            identity("arn:aws:sts::111122223333:assumed-role/broker/pod-1", "AROAEXAMPLE:pod-1"),
            identity("arn:aws:iam::111122223333:user/team/Alice", "AIDAEXAMPLE"),
            identity("arn:aws:iam::111122223333:root", "111122223333"),
        ];
        insta::assert_snapshot!(identities.join("\n"));
    }
}
