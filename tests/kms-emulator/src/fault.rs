//! Faults: what is to go wrong, and when.
//!
//! A [`Fault`] is one [`Effect`] and the calls it befalls. A call meets all faults in the order in which they were
//! injected: latencies add up, and the first other effect that befalls it decides its fate.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A kind of failure. Each has a text form, used in JSON and in the header `x-emulator-fault`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Effect {
    /// `latency=50`: the call waits first, here 50 milliseconds.
    Latency(Duration),
    /// `error=DisabledException`: the call does nothing and answers with this AWS error, with AWS's usual message and
    /// status. Short for three of them: `throttling`, `internal-error`, `access-denied`.
    Error(String),
    /// `close`: the call does nothing, and the connection closes without an answer.
    Close,
    /// `hang`: the call does nothing, and there is never an answer.
    Hang,
    /// `lose-answer`: the call is done, and the connection closes without the answer.
    LoseAnswer,
    /// `wrong-key-id`: the answer names a key that does not exist.
    WrongKeyId,
    /// `missing-plaintext`: the answer has no `Plaintext`.
    MissingPlaintext,
    /// `plaintext-despite-recipient`: the answer to an attested call has the `Plaintext`, too.
    PlaintextDespiteRecipient,
    /// `missing-ciphertext-for-recipient`: the answer has no `CiphertextForRecipient`.
    MissingCiphertextForRecipient,
    /// `corrupt-body`: the answer has status 200 and is not JSON.
    CorruptBody,
    /// `no-request-id`: the answer has no `x-amzn-RequestId`.
    NoRequestId,
    /// `long-answer`: the answer has a member of a megabyte that nobody asked for.
    LongAnswer,
    /// `long-ciphertext`: the answer's `CiphertextBlob` is longer than any of KMS's.
    LongCiphertext,
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Latency(latency) => write!(formatter, "latency={}", latency.as_millis()),
            Effect::Error(code) => write!(formatter, "error={code}"),
            Effect::Close => formatter.write_str("close"),
            Effect::Hang => formatter.write_str("hang"),
            Effect::LoseAnswer => formatter.write_str("lose-answer"),
            Effect::WrongKeyId => formatter.write_str("wrong-key-id"),
            Effect::MissingPlaintext => formatter.write_str("missing-plaintext"),
            Effect::PlaintextDespiteRecipient => formatter.write_str("plaintext-despite-recipient"),
            Effect::MissingCiphertextForRecipient => formatter.write_str("missing-ciphertext-for-recipient"),
            Effect::CorruptBody => formatter.write_str("corrupt-body"),
            Effect::NoRequestId => formatter.write_str("no-request-id"),
            Effect::LongAnswer => formatter.write_str("long-answer"),
            Effect::LongCiphertext => formatter.write_str("long-ciphertext"),
        }
    }
}

impl FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> Result<Effect, String> {
        let unknown = || format!("unknown effect {text:?}");
        match text.split_once('=') {
            Some(("latency", millis)) => millis
                .parse()
                .map(|millis| Effect::Latency(Duration::from_millis(millis)))
                .map_err(|_| unknown()),
            Some(("error", code))
                if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                Ok(Effect::Error(code.to_owned()))
            }
            Some(_) => Err(unknown()),
            None => Ok(match text {
                "throttling" => Effect::Error(THROTTLING.to_owned()),
                "internal-error" => Effect::Error(INTERNAL_ERROR.to_owned()),
                "access-denied" => Effect::Error(ACCESS_DENIED.to_owned()),
                "close" => Effect::Close,
                "hang" => Effect::Hang,
                "lose-answer" => Effect::LoseAnswer,
                "wrong-key-id" => Effect::WrongKeyId,
                "missing-plaintext" => Effect::MissingPlaintext,
                "plaintext-despite-recipient" => Effect::PlaintextDespiteRecipient,
                "missing-ciphertext-for-recipient" => Effect::MissingCiphertextForRecipient,
                "corrupt-body" => Effect::CorruptBody,
                "no-request-id" => Effect::NoRequestId,
                "long-answer" => Effect::LongAnswer,
                "long-ciphertext" => Effect::LongCiphertext,
                _ => return Err(unknown()),
            }),
        }
    }
}

impl TryFrom<String> for Effect {
    type Error = String;

    fn try_from(text: String) -> Result<Effect, String> {
        text.parse()
    }
}

impl From<Effect> for String {
    fn from(effect: Effect) -> String {
        effect.to_string()
    }
}

/// An effect and the calls it befalls: all of them, unless narrowed.
///
/// As JSON: `{"effect": "throttling", "operation": "Decrypt", "times": 3, "every": 2, "chance": {"of": 0.5, "seed": 1}}`,
/// all but `effect` optional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The kind of failure.
    pub effect: Effect,
    /// Only calls of this operation, by AWS's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Only so many times, then never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Only every so manieth of those calls: with 3, the third, the sixth …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU64>,
    /// Only by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<Chance>,
}

/// A probability whose outcomes are the same in every run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// From 0 (never) to 1 (always).
    pub of: f64,
    /// The seed of the sequence of outcomes.
    pub seed: u64,
}

impl Fault {
    /// An effect on every call.
    #[must_use]
    pub fn new(effect: Effect) -> Fault {
        Fault { effect, operation: None, times: None, every: None, chance: None }
    }

    /// Every call waits first.
    #[must_use]
    pub fn latency(latency: Duration) -> Fault {
        Fault::new(Effect::Latency(latency))
    }

    /// Every call is throttled: HTTP 400.
    #[must_use]
    pub fn throttling() -> Fault {
        Fault::error(THROTTLING)
    }

    /// Every call fails with `KMSInternalException`: HTTP 500.
    #[must_use]
    pub fn internal_error() -> Fault {
        Fault::error(INTERNAL_ERROR)
    }

    /// Every call is denied: HTTP 400.
    #[must_use]
    pub fn access_denied() -> Fault {
        Fault::error(ACCESS_DENIED)
    }

    /// Every call fails with this AWS error.
    #[must_use]
    pub fn error(code: &str) -> Fault {
        Fault::new(Effect::Error(code.to_owned()))
    }

    /// Only calls of this operation, by AWS's name.
    #[must_use]
    pub fn on(mut self, operation: &str) -> Fault {
        self.operation = Some(operation.to_owned());
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.times = Some(times);
        self
    }

    /// Only every `nth` call; 0 counts as 1.
    #[must_use]
    pub fn every(mut self, nth: u64) -> Fault {
        self.every = Some(NonZeroU64::new(nth).unwrap_or(NonZeroU64::MIN));
        self
    }

    /// Only with this probability, from 0 to 1; the same seed gives the same outcomes.
    #[must_use]
    pub fn with_chance(mut self, of: f64, seed: u64) -> Fault {
        self.chance = Some(Chance { of, seed });
        self
    }
}

/// The faults in force.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<Armed>>);

/// The faults of one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// How long it waits first.
    pub(crate) latency: Duration,
    /// The failure after any latency.
    pub(crate) effect: Option<Effect>,
}

impl Fate {
    fn meet(&mut self, effect: &Effect) {
        match effect {
            Effect::Latency(latency) => self.latency += *latency,
            effect => self.effect = self.effect.take().or_else(|| Some(effect.clone())),
        }
    }

    /// Adds the effects that the request itself asks for.
    pub(crate) fn meet_header(&mut self, header: &str) -> Result<(), String> {
        for effect in header.split(',') {
            self.meet(&effect.trim().parse()?);
        }
        Ok(())
    }
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) {
        self.lock().push(Armed::new(fault));
    }

    pub(crate) fn replace(&self, faults: Vec<Fault>) {
        *self.lock() = faults.into_iter().map(Armed::new).collect();
    }

    /// The faults in force, `times` being what is left of it.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.lock().iter().map(|armed| armed.fault.clone()).collect()
    }

    /// Draws the faults of the next call of an operation.
    pub(crate) fn draw(&self, operation: &str) -> Fate {
        let mut fate = Fate::default();
        for armed in self.lock().iter_mut() {
            // A call that already has its fate does not use up later faults.
            let decided = fate.effect.is_some() && !matches!(armed.fault.effect, Effect::Latency(_));
            if !decided && armed.befalls(operation) {
                fate.meet(&armed.fault.effect);
            }
        }
        fate
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault and how far it has come.
struct Armed {
    fault: Fault,
    /// The calls of its operation so far.
    seen: u64,
    /// The state of its chance.
    random: u64,
}

impl Armed {
    fn new(fault: Fault) -> Armed {
        let random = fault.chance.map_or(0, |chance| chance.seed);
        Armed { fault, seen: 0, random }
    }

    fn befalls(&mut self, operation: &str) -> bool {
        if self.fault.operation.as_deref().is_some_and(|only| only != operation)
            || self.fault.times == Some(0)
        {
            return false;
        }
        self.seen += 1;
        if self.fault.every.is_some_and(|every| self.seen % every != 0) {
            return false;
        }
        if self.fault.chance.is_some_and(|chance| self.next_unit() >= chance.of) {
            return false;
        }
        self.fault.times = self.fault.times.map(|times| times - 1);
        true
    }

    /// The next number from 0 to 1, by `SplitMix64` (Steele, Lea and Flood, 2014): small, and good for dice.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    fn next_unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const THROTTLING: &str = "ThrottlingException";
const INTERNAL_ERROR: &str = "KMSInternalException";
const ACCESS_DENIED: &str = "AccessDeniedException";

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(fault: Fault, calls: usize) -> Vec<bool> {
        let faults = Faults::default();
        faults.inject(fault);
        (0..calls).map(|_| faults.draw("Decrypt").effect.is_some()).collect()
    }

    #[test]
    fn times_and_every_count_calls_of_the_operation() {
        assert_eq!(outcomes(Fault::throttling().times(2), 4), [true, true, false, false]);
        assert_eq!(outcomes(Fault::throttling().every(2).times(1), 4), [false, true, false, false]);
        assert_eq!(outcomes(Fault::throttling().on("Encrypt"), 1), [false]);
    }

    #[test]
    fn a_chance_is_the_same_for_the_same_seed() {
        let one = outcomes(Fault::throttling().with_chance(0.25, 7), 4000);
        assert_eq!(one, outcomes(Fault::throttling().with_chance(0.25, 7), 4000));
        assert_ne!(one, outcomes(Fault::throttling().with_chance(0.25, 8), 4000));
        let share = one.iter().filter(|befallen| **befallen).count();
        assert!((900..1100).contains(&share), "{share} of 4000");
    }

    #[test]
    fn latencies_add_up_and_the_first_other_effect_wins() {
        let faults = Faults::default();
        faults.inject(Fault::latency(Duration::from_millis(5)));
        faults.inject(Fault::throttling());
        faults.inject(Fault::internal_error().times(1));
        faults.inject(Fault::latency(Duration::from_millis(7)));
        let fate = faults.draw("Sign");
        assert_eq!(fate.latency, Duration::from_millis(12));
        assert_eq!(fate.effect, Some(Effect::Error(THROTTLING.to_owned())));
        assert_eq!(faults.list()[2].times, Some(1), "not used up");
    }

    #[test]
    fn every_effect_has_a_text_form() {
        let texts = [
            "latency=50",
            "error=DisabledException",
            "close",
            "hang",
            "lose-answer",
            "wrong-key-id",
            "missing-plaintext",
            "plaintext-despite-recipient",
            "missing-ciphertext-for-recipient",
            "corrupt-body",
        ];
        for text in texts {
            assert_eq!(text.parse::<Effect>().expect("an effect").to_string(), text);
        }
        assert_eq!("throttling".parse(), Ok(Effect::Error(THROTTLING.to_owned())));
        for wrong in ["", "latency", "latency=x", "error=", "error=a b", "Close"] {
            assert!(wrong.parse::<Effect>().is_err(), "{wrong}");
        }
    }
}
