//! `kms.role_arn` and `kms.session_name`: which role sessions the broker makes.

/// Checks the ARN of a role that `key` is set to.
pub(super) fn role_arn(key: &str, arn: String) -> Result<String, String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let is_one = match parts[..] {
        ["arn", partition, "iam", "", account, resource] => {
            partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty() && !name.ends_with('/'))
        }
        _ => false,
    };
    if is_one {
        Ok(arn)
    } else {
        Err(format!(
            "{key}: {arn:?} is not the ARN of a role such as \"arn:aws:iam::111122223333:role/key-broker\""
        ))
    }
}

/// The name of the sessions, with its placeholders filled in from the environment; refused where somebody else names them.
pub(super) fn name(
    template: Option<&str>,
    assumes_a_role: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let Some(template) = template else { return Ok(None) };
    if !assumes_a_role && let Some(who) = named_by(&variable) {
        return Err(format!(
            "kms.session_name: {who}: leave it out, or set kms.role_arn, a role whose sessions the broker makes itself"
        ));
    }
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((placeholder, after)) = after.split_once('}') else { return Err(unknown(template, rest)) };
        name.push_str(before);
        name.push_str(&value_of(placeholder, &variable).ok_or_else(|| unknown(template, placeholder))??);
        rest = after;
    }
    name.push_str(rest);
    name.truncate(name.floor_char_boundary(LONGEST_NAME));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if name.len() < 2 || !name.chars().all(is_allowed) {
        return Err(format!(
            "kms.session_name: {name:?} is not a session name: AWS allows 2 to 64 letters, digits and characters of \"_+=,.@-\""
        ));
    }
    Ok(Some(name))
}

/// Who names the sessions, if it is not the broker.
fn named_by(variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    if variable("AWS_ACCESS_KEY_ID").is_some() {
        return Some("the environment has credentials (AWS_ACCESS_KEY_ID), and the broker makes no session");
    }
    if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        return None;
    }
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
        .iter()
        .any(|name| variable(name).is_some())
        .then_some("EKS Pod Identity or ECS names the sessions that it gives to containers")
}

/// `None`: there is no such placeholder.
fn value_of(placeholder: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Result<String, String>> {
    if placeholder == "hostname" {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return Some(Ok(name));
    }
    let name = placeholder.strip_prefix("env:")?;
    Some(variable(name).ok_or_else(|| format!("kms.session_name: the environment has no {name}")))
}

fn unknown(template: &str, placeholder: &str) -> String {
    format!("kms.session_name: {template:?}: {placeholder:?} is neither {{hostname}} nor {{env:NAME}}")
}

/// A variable of the environment that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// AWS: `RoleSessionName` has 2 to 64 characters.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    //! Session names are filled in, fit AWS's form, and are refused where the broker does not make the session.

    use super::*;

    fn with(variables: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn placeholders_are_filled_in_and_nothing_else_is_taken() {
        let pod = with(&[("POD_NAME", "orders-7d9"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]);
        let of = |template| name(Some(template), false, &pod);
        assert_eq!(of("kb-{env:POD_NAME}"), Ok(Some("kb-orders-7d9".into())));
        assert!(of("kb-{hostname}").is_ok_and(|name| name.is_some_and(|name| name.len() > 3)));
        let long = of(
            "a{env:POD_NAME}{env:POD_NAME}{env:POD_NAME}{env:POD_NAME}{env:POD_NAME}{env:POD_NAME}{env:POD_NAME}",
        );
        assert_eq!(long.map(|name| name.map(|name| name.len())), Ok(Some(64)));
        for (wrong, word) in [
            ("{env:NONE}", "NONE"),
            ("{pod}", "hostname"),
            ("{hostname", "hostname"),
            ("a b", "64"),
            ("x", "64"),
        ] {
            assert!(of(wrong).is_err_and(|why| why.contains(word)), "{wrong}");
        }
        assert_eq!(name(None, false, with(&[])), Ok(None));
    }

    #[test]
    fn where_somebody_else_names_the_sessions_it_is_refused() {
        let pod_identity =
            with(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")]);
        assert!(name(Some("kb"), false, &pod_identity).is_err_and(|why| why.contains("Pod Identity")));
        assert_eq!(name(Some("kb"), true, &pod_identity), Ok(Some("kb".into())), "the broker assumes a role");
        let keys = with(&[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]);
        assert!(name(Some("kb"), false, keys).is_err_and(|why| why.contains("AWS_ACCESS_KEY_ID")));
    }

    #[test]
    fn a_role_is_named_by_its_arn() {
        for arn in ["arn:aws:iam::111122223333:role/kb", "arn:aws-cn:iam::111122223333:role/team/a/kb"] {
            assert_eq!(role_arn("kms.role_arn", arn.into()).as_deref(), Ok(arn));
        }
        for wrong in [
            "kb",
            "arn:aws:sts::111122223333:assumed-role/kb/s",
            "arn:aws:iam::1:role/kb",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(role_arn("kms.role_arn", wrong.into()).is_err(), "{wrong}");
        }
    }
}
