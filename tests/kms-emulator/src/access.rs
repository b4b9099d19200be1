//! Whether a caller may do what is asked: by the key's policy, the policy of the caller's role, and the key's grants.
//!
//! - What either policy denies is denied.
//! - What the key's policy or a grant allows to the caller is allowed. What the key's policy leaves to the caller's account is
//!   allowed if the role's policy allows it.
//! - A key that no policy was put on leaves everything to whatever account calls; a role that none was put on may do everything
//!   that is left to it. So an emulator on which nothing was put lets everybody do everything.
//!
//! <https://docs.aws.amazon.com/kms/latest/developerguide/policy-evaluation.html>

use crate::caller::Caller;
use crate::context::EncryptionContext;
use crate::error::ApiError;
use crate::key::Key;
use crate::policy::{Policy, Question, Verdict};
use crate::store::State;

/// Judges a call that uses or changes a key. `action` is AWS's name without its prefix; `context` is nothing where the
/// operation has none.
pub(crate) fn judge(
    state: &State,
    caller: &Caller,
    key: &Key,
    action: &str,
    context: Option<&EncryptionContext>,
) -> Result<(), ApiError> {
    let role = role_policy(state, caller);
    if key.policy.is_none() && role.is_none() {
        return Ok(());
    }
    let none = EncryptionContext::new();
    let prefixed = format!("kms:{action}");
    let question =
        Question { caller, action: &prefixed, resource: &key.arn, context: context.unwrap_or(&none) };
    let by_key = match &key.policy {
        Some(policy) => policy.judge(question),
        None => Verdict { delegated: true, ..Verdict::default() },
    };
    let by_role = of_role(role, question);
    let denied = |why: &str| {
        let message = format!(
            "User: {} is not authorized to perform: {prefixed} on resource: {} {why}",
            caller.arn, key.arn
        );
        Err(ApiError::new("AccessDeniedException", message))
    };
    let granted = || key.grants.iter().any(|grant| grant.permits(caller, action, context));
    match () {
        () if by_key.denied => denied("with an explicit deny in a resource-based policy"),
        () if by_role.denied => denied("with an explicit deny in an identity-based policy"),
        () if by_key.allowed || by_key.delegated && by_role.allowed || granted() => Ok(()),
        () if by_key.delegated => {
            denied(&format!("because no identity-based policy allows the {prefixed} action"))
        }
        () => denied(&format!("because no resource-based policy allows the {prefixed} action")),
    }
}

/// Judges a call that is about no key.
pub(crate) fn judge_keyless(state: &State, caller: &Caller, action: &str) -> Result<(), ApiError> {
    let (none, prefixed) = (EncryptionContext::new(), format!("kms:{action}"));
    let question = Question { caller, action: &prefixed, resource: "*", context: &none };
    let verdict = of_role(role_policy(state, caller), question);
    let why = match verdict {
        Verdict { denied: true, .. } => "with an explicit deny in an identity-based policy".to_owned(),
        Verdict { allowed: true, .. } => return Ok(()),
        _ => format!("because no identity-based policy allows the {prefixed} action"),
    };
    let message =
        format!("User: {} is not authorized to perform: {prefixed} on resource: * {why}", caller.arn);
    Err(ApiError::new("AccessDeniedException", message))
}

fn role_policy<'a>(state: &'a State, caller: &Caller) -> Option<&'a Policy> {
    state.role_policies.get(caller.role.as_deref()?).map(AsRef::as_ref)
}

fn of_role(policy: Option<&Policy>, question: Question<'_>) -> Verdict {
    let everything = Verdict { allowed: true, ..Verdict::default() };
    policy.map_or(everything, |policy| policy.judge(question))
}
