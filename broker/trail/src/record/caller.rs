//! The broker's AWS identity: the `userIdentity` of KMS records.

use key_broker_core::{KeyArn, KeyId};

use super::identity::{IdentityKind, SessionContext, SessionIssuer, UserIdentity};

/// The broker's place in AWS, which never changes while it runs, unlike the session with which it calls KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCaller {
    /// The account: 12 digits.
    pub account_id: String,
    /// The partition: `aws`, `aws-cn`, …
    pub partition: String,
    /// The region of the KMS endpoint.
    pub region: String,
    /// The host of the KMS endpoint.
    pub kms_host: String,
    /// The host's own address toward KMS. Behind NAT, CloudTrail sees another.
    pub source_address: String,
}

impl AwsCaller {
    /// The ARN of the KMS key that `key` names, if `key` says enough: a key ARN, or a key id, which belongs to the caller's own partition,
    /// region and account. All replicas of a multi-Region key have one ARN here, in this region.
    #[must_use]
    pub fn key_arn(&self, key: &KeyId) -> Option<KeyArn> {
        if key.as_str().starts_with("arn:") {
            return KeyArn::parse(key.as_str()).map(|arn| arn.in_region(&self.region));
        }
        if key.is_alias() {
            return None;
        }
        let Self { account_id, partition, region, .. } = self;
        KeyArn::parse(&format!("arn:{partition}:kms:{region}:{account_id}:key/{}", key.as_str()))
    }
}

impl UserIdentity<'static> {
    /// An AWS principal in the form of CloudTrail
    /// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html>): the account, ARN and
    /// unique id from sts:GetCallerIdentity, and the ARN of the role, with its path if that is known from elsewhere.
    #[must_use]
    pub fn of_aws(account_id: &str, arn: &str, user_id: &str, role_arn: Option<&str>) -> Self {
        let (kind, user_name, role) = kind_of(arn);
        let session_context = role.map(|role| SessionContext {
            session_issuer: SessionIssuer {
                kind: "Role".into(),
                principal_id: user_id.split(':').next().unwrap_or_default().to_owned().into(),
                arn: Some(role_arn.map_or_else(|| without_path(arn, account_id, role), str::to_owned).into()),
                account_id: account_id.to_owned().into(),
                user_name: role.to_owned().into(),
            },
        });
        Self {
            kind: kind.name().into(),
            principal_id: Some(user_id.to_owned().into()),
            arn: Some(arn.to_owned().into()),
            account_id: Some(account_id.to_owned().into()),
            user_name: user_name.map(|name| name.to_owned().into()),
            session_context,
            ..Self::default()
        }
    }
}

/// The kind of principal in an ARN, and the names of the user and the role.
fn kind_of(arn: &str) -> (IdentityKind, Option<&str>, Option<&str>) {
    let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
    let mut parts = resource.split('/');
    match parts.next() {
        Some("assumed-role") => (IdentityKind::AssumedRole, None, Some(parts.next().unwrap_or_default())),
        Some("user") => (IdentityKind::IAMUser, parts.next_back(), None),
        Some("root") => (IdentityKind::Root, None, None),
        Some("federated-user") => (IdentityKind::FederatedUser, None, None),
        _ => (IdentityKind::Unknown, None, None),
    }
}

/// The ARN of a role without a path, from that of one of its sessions.
fn without_path(session: &str, account_id: &str, role: &str) -> String {
    let partition = session.split(':').nth(1).unwrap_or_default();
    format!("arn:{partition}:iam::{account_id}:role/{role}")
}

#[cfg(test)]
mod tests {
    //! STS's answers become CloudTrail's identities without anything invented.

    use super::*;

    fn identity(arn: &str, user_id: &str, role_arn: Option<&str>) -> String {
        let mut identity = UserIdentity::of_aws("111122223333", arn, user_id, role_arn);
        identity.access_key_id = Some("AKIAEXAMPLE".into());
        serde_json::to_string(&identity).expect("serializes")
    }

    #[test]
    fn a_key_arn_is_told_by_the_id_alone_or_not_at_all() {
        let caller = AwsCaller {
            account_id: "111122223333".into(),
            partition: "aws-new".into(),
            region: "eusc-de-east-1".into(),
            kms_host: String::new(),
            source_address: String::new(),
        };
        let of = |key: &str| {
            let arn = caller.key_arn(&KeyId::parse(key).expect(key));
            arn.map(|arn| arn.as_str().to_owned())
        };
        let new = "arn:aws-new:kms:eusc-de-east-1:111122223333:key/1234-ab";
        assert_eq!(of("1234-ab").as_deref(), Some(new));
        let other = "arn:aws:kms:eu-west-1:444455556666:key/1234-ab";
        assert_eq!(of(other).as_deref(), Some(other));
        let replica = "arn:aws-new:kms:eusc-de-east-2:111122223333:key/mrk-1234";
        assert_eq!(
            of(replica).as_deref(),
            Some("arn:aws-new:kms:eusc-de-east-1:111122223333:key/mrk-1234"),
            "one key, one ARN"
        );
        assert_eq!(of("mrk-1234"), of(replica));
        assert_eq!(of("alias/dev"), None);
        assert_eq!(of("arn:aws-new:kms:eusc-de-east-1:111122223333:alias/dev"), None);
    }

    #[test]
    fn roles_users_and_root() {
        let session = "arn:aws-cn:sts::111122223333:assumed-role/broker/pod-1";
        let with_path = "arn:aws-cn:iam::111122223333:role/team/broker";
        let identities = [
            identity(session, "AROAEXAMPLE:pod-1", None),
            identity(session, "AROAEXAMPLE:pod-1", Some(with_path)),
            identity("arn:aws:iam::111122223333:user/team/Alice", "AIDAEXAMPLE", None),
            identity("arn:aws:iam::111122223333:root", "111122223333", None),
        ];
        insta::assert_snapshot!(identities.join("\n"));
    }
}
