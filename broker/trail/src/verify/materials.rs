//! Follows the key material behind each answer of KMS through rotation.
//!
//! A key encrypts under its current material, and decrypts with the material that the ciphertext was made with. Rotation replaces the
//! current material for good (<https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html>). So two things are impossible,
//! and records of them are not KMS's answers: a ciphertext with two materials, and a new ciphertext under a material that was replaced
//! long ago. When and how often KMS rotates is its own affair: a material that was never seen before is no fault, nor is any material of
//! a ciphertext from before the trail.
//!
//! Changes of a key take KMS up to several minutes to propagate, and answers are not recorded in the order in which KMS made them.

use std::collections::{HashMap, VecDeque};

use super::finding::{FindingKind, Severity};
use super::record::{Ciphertexts, KmsMaterials, Material};
use super::reuse::{At, Fault};

/// Materials by key, by call and by ciphertext, all as hashes.
#[derive(Default)]
pub(super) struct Materials {
    keys: Recent<u64, Course>,
    calls: Recent<u128, KmsMaterials>,
    /// Also by key, since replicas of a key need not have the same name for a material.
    ciphertexts: Recent<(u64, u64), u64>,
}

/// The materials that a key in one region has encrypted under.
struct Course {
    current: u64,
    /// When the current one was first seen.
    since: i64,
    /// Earlier ones, the oldest first.
    replaced: VecDeque<Replaced>,
}

struct Replaced {
    material: u64,
    /// When its replacement was first seen.
    at: i64,
    /// Whether it had been seen for long enough that the replacement is certainly newer.
    is_certain: bool,
}

impl Materials {
    /// Takes a record of a call to KMS.
    pub(super) fn called(
        &mut self,
        event_id: u128,
        materials: KmsMaterials,
        when: i64,
        at: At,
        faults: &mut Vec<Fault>,
    ) {
        if materials == KmsMaterials::default() {
            return;
        }
        self.calls.insert(event_id, materials);
        let Some(Material { key, id }) = materials.sealed else { return };
        match self.keys.get_mut(&key) {
            None => self.keys.insert(key, Course::begin(id, when)),
            Some(course) => faults.extend(course.goes_on(id, when, at)),
        }
    }

    /// Takes a record of a use, which names the call behind it and the ciphertexts that it decrypted and made.
    pub(super) fn used(&mut self, call: u128, ciphertexts: Ciphertexts, at: At, faults: &mut Vec<Fault>) {
        let Some(materials) = self.calls.get_mut(&call).copied() else { return };
        let pairs = [(ciphertexts.opened, materials.opened), (ciphertexts.sealed, materials.sealed)];
        for (ciphertext, material) in pairs {
            let (Some(ciphertext), Some(Material { key, id })) = (ciphertext, material) else { continue };
            match self.ciphertexts.get_mut(&(ciphertext, key)) {
                None => self.ciphertexts.insert((ciphertext, key), id),
                Some(known) if *known != id => {
                    let words = "its ciphertext was sealed or opened with another key material before: it is of one for good";
                    let (kind, severity) = (FindingKind::MaterialMixed, Severity::Unsound);
                    faults.push(Fault { kind, severity, at, words: words.to_owned() });
                }
                Some(_) => {}
            }
        }
    }
}

impl Course {
    fn begin(material: u64, when: i64) -> Self {
        Self { current: material, since: when, replaced: VecDeque::new() }
    }

    /// Takes the material of another answer.
    fn goes_on(&mut self, material: u64, when: i64, at: At) -> Option<Fault> {
        if material == self.current {
            return None;
        }
        let Some(place) = self.replaced.iter().position(|replaced| replaced.material == material) else {
            self.replace(material, when, when.saturating_sub(self.since) > SETTLING_SECONDS);
            return None;
        };
        let Replaced { at: replaced_at, is_certain, .. } = self.replaced[place];
        let late = when.saturating_sub(replaced_at);
        if late <= SETTLING_SECONDS {
            return None;
        }
        if !is_certain {
            // It turns out to be the newer of the two.
            self.replaced.remove(place);
            self.replace(material, replaced_at, true);
            return None;
        }
        let severity = if late <= SETTLED_SECONDS { Severity::CannotTell } else { Severity::Unsound };
        let words = format!(
            "KMS is said to have encrypted under a key material that it had replaced {late} seconds before: rotation does not go back"
        );
        Some(Fault { kind: FindingKind::MaterialWentBack, severity, at, words })
    }

    fn replace(&mut self, material: u64, when: i64, is_certain: bool) {
        if self.replaced.len() >= MOST_REPLACED {
            self.replaced.pop_front();
        }
        self.replaced.push_back(Replaced { material: self.current, at: when, is_certain });
        (self.current, self.since) = (material, when);
    }
}

/// The most recent entries of a kind, in two generations.
struct Recent<K, T> {
    newer: HashMap<K, T>,
    older: HashMap<K, T>,
}

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self { newer: HashMap::new(), older: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq + Copy, T> Recent<K, T> {
    fn insert(&mut self, key: K, value: T) {
        if self.newer.len() >= GENERATION {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(key, value);
    }

    /// Looks up an entry and keeps it among the recent ones.
    fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        if let Some(value) = self.older.remove(key) {
            self.insert(*key, value);
        }
        self.newer.get_mut(key)
    }
}

/// KMS: a change takes up to several minutes to propagate.
const SETTLING_SECONDS: i64 = 300;
/// No change takes this long.
const SETTLED_SECONDS: i64 = 3_600;
/// For one key; KMS allows 25 rotations on demand.
const MOST_REPLACED: usize = 64;
/// Stated in docs/audit.md.
const GENERATION: usize = 100_000;

#[cfg(test)]
mod tests;
