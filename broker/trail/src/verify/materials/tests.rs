//! Materials only go forward, a ciphertext has one material, and what is remembered is bounded.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn sealed(key: u64, id: u64) -> KmsMaterials {
    KmsMaterials { sealed: Some(Material { key, id }), opened: None }
}

fn opened(key: u64, id: u64) -> KmsMaterials {
    KmsMaterials { sealed: None, opened: Some(Material { key, id }) }
}

fn kinds(faults: &[Fault]) -> Vec<(FindingKind, Severity)> {
    faults.iter().map(|fault| (fault.kind, fault.severity)).collect()
}

/// The findings for answers of one key, given their materials and times.
fn of_answers(answers: &[(u64, i64)]) -> Vec<(FindingKind, Severity)> {
    let (mut materials, mut faults) = (Materials::default(), Vec::new());
    for (number, (material, when)) in answers.iter().enumerate() {
        materials.called(number as u128, sealed(1, *material), *when, At::default(), &mut faults);
    }
    kinds(&faults)
}

proptest! {
    /// In any order of recording, as long as KMS propagates a change within the time it states.
    #[test]
    fn rotations_are_no_fault(
        answers in vec((0..20_000_i64, 0..SETTLING_SECONDS), 1..80), period in 900..5_000_i64,
    ) {
        let mut answers: Vec<(u64, i64)> = answers
            .into_iter()
            .map(|(when, behind)| (u64::try_from((when - behind).max(0) / period).expect("not negative"), when))
            .collect();
        answers.sort_by_key(|(_, when)| *when);
        prop_assert_eq!(of_answers(&answers), []);
    }
}

#[test]
fn a_material_that_was_replaced_does_not_come_back() {
    let back = |severity| [(FindingKind::MaterialWentBack, severity)];
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (1, 1_300)]), []);
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (1, 1_301)]), back(Severity::CannotTell));
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (1, 4_600)]), back(Severity::CannotTell));
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (1, 4_601)]), back(Severity::Unsound));
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (3, 9_000), (1, 9_100)]), back(Severity::Unsound));
    assert_eq!(of_answers(&[(1, 0), (2, 1_000), (3, 9_000), (2, 9_100)]), []);
    // If two materials are first seen within those minutes, the second may be the older one.
    assert_eq!(of_answers(&[(2, 0), (1, 300), (2, 9_000)]), []);
    assert_eq!(of_answers(&[(2, 0), (1, 300), (2, 9_000), (1, 9_001)]), back(Severity::Unsound));
}

#[test]
fn keys_and_regions_go_their_own_way() {
    let (mut materials, mut faults) = (Materials::default(), Vec::new());
    for (number, (key, material)) in [(1, 1), (1, 2), (2, 1), (2, 1)].into_iter().enumerate() {
        let when = i64::try_from(number).expect("few") * 10_000;
        materials.called(number as u128, sealed(key, material), when, At::default(), &mut faults);
    }
    assert_eq!(kinds(&faults), []);
}

#[test]
fn a_ciphertext_is_of_one_material() {
    let (mut materials, mut faults) = (Materials::default(), Vec::new());
    let mut call = |number: u128, of: KmsMaterials, ciphertexts: Ciphertexts| {
        let mut faults = Vec::new();
        materials.called(number, of, 0, At::default(), &mut faults);
        materials.used(number, ciphertexts, At::default(), &mut faults);
        kinds(&faults)
    };
    let seals = |ciphertext| Ciphertexts { sealed: Some(ciphertext), opened: None };
    let opens = |ciphertext| Ciphertexts { sealed: None, opened: Some(ciphertext) };
    assert_eq!(call(1, sealed(1, 1), seals(7)), []);
    assert_eq!(call(2, sealed(1, 2), seals(8)), [], "rotated");
    assert_eq!(call(3, opened(1, 1), opens(7)), [], "with the material that it was sealed with");
    assert_eq!(call(4, opened(1, 9), opens(6)), [], "of before the trail");
    assert_eq!(call(5, opened(1, 2), opens(7)), [(FindingKind::MaterialMixed, Severity::Unsound)]);
    assert_eq!(call(6, opened(1, 8), opens(6)), [(FindingKind::MaterialMixed, Severity::Unsound)]);
    assert_eq!(call(9, opened(2, 4), opens(7)), [], "a replica's, in another region");
    let both = KmsMaterials { sealed: Some(Material { key: 2, id: 5 }), ..opened(1, 1) };
    assert_eq!(call(7, both, Ciphertexts { opened: Some(7), sealed: Some(9) }), [], "a ReEncrypt");
    assert_eq!(call(8, opened(2, 1), opens(9)), [(FindingKind::MaterialMixed, Severity::Unsound)]);
    materials.used(99, opens(7), At::default(), &mut faults);
    assert_eq!(kinds(&faults), [], "whose call is not known");
}

#[test]
fn memory_is_bounded() {
    let mut recent = Recent::default();
    for key in 0..5 * GENERATION {
        recent.insert(key, ());
        assert!(recent.get_mut(&0).is_some(), "what is looked at stays");
    }
    assert!(recent.newer.len() + recent.older.len() <= 2 * GENERATION + 1);
    assert!(recent.get_mut(&1).is_none());
    let mut course = Course::begin(0, 0);
    for material in 1..1_000 {
        course.goes_on(material, 0, At::default());
    }
    assert_eq!(course.replaced.len(), MOST_REPLACED);
}
