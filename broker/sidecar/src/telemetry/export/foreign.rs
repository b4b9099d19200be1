//! Attributes of the AWS SDK's spans in this program's vocabulary: the SDK's are of older conventions, or have no namespace.

use opentelemetry::{KeyValue, Value};

use crate::telemetry::vocabulary::{RPC_METHOD, RPC_SYSTEM, SDK_ATTEMPT, SDK_INVOCATION_ID};

/// Renames attributes outside the vocabulary. The SDK's service and method become one attribute.
pub(super) fn rename(attributes: &mut Vec<KeyValue>) {
    let service = attributes.iter().position(|attribute| attribute.key.as_str() == SERVICE);
    let service = service.map(|place| attributes.swap_remove(place).value);
    for attribute in attributes {
        match attribute.key.as_str() {
            "rpc.system" => attribute.key = RPC_SYSTEM.into(),
            "attempt" => attribute.key = SDK_ATTEMPT.into(),
            "sdk_invocation_id" => attribute.key = SDK_INVOCATION_ID.into(),
            RPC_METHOD => {
                if let Some(service) = &service {
                    let method = format!("{}/{}", service.as_str(), attribute.value.as_str());
                    attribute.value = Value::from(method);
                }
            }
            _ => {}
        }
    }
}

const SERVICE: &str = "rpc.service";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_method_become_one_and_nothing_of_our_own_changes() {
        let mut attributes = vec![
            KeyValue::new("rpc.service", "S3"),
            KeyValue::new("rpc.method", "PutObject"),
            KeyValue::new("rpc.system", "aws-api"),
            KeyValue::new("sdk_invocation_id", 7),
        ];
        rename(&mut attributes);
        attributes.sort_by(|one, other| one.key.cmp(&other.key));
        let expected = [
            KeyValue::new("keybroker.sdk.invocation_id", 7),
            KeyValue::new("rpc.method", "S3/PutObject"),
            KeyValue::new("rpc.system.name", "aws-api"),
        ];
        assert_eq!(attributes, expected);

        let ours = [KeyValue::new("rpc.method", "KMS/Decrypt"), KeyValue::new("rpc.system.name", "aws-api")];
        let mut attributes = ours.to_vec();
        rename(&mut attributes);
        assert_eq!(attributes, ours);
    }
}
