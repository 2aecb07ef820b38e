//! Which known name was probably meant.

/// The candidate most like `name`, if one is like it: at most a third of its characters, and at most three, differ.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances cost the product of the lengths, so a huge key is not worth it.
    if name.len() > 64 {
        return None;
    }
    let allowed = name.chars().count().div_ceil(3).min(3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: insertions, deletions and replacements between two texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        // `diagonal` is the cell up and left, `left` the one just written.
        let (mut diagonal, mut left) = (i, i + 1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            (diagonal, *cell, left) = (*cell, value, value);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("rotes", "routes", 1)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn only_a_likely_name_is_suggested() {
        let names = ["routes", "stages", "domains"];
        assert_eq!(nearest("rotues", names), Some("routes"));
        assert_eq!(nearest("jion", ["join", "leave"]), Some("join"));
        assert_eq!(nearest("Routes", names), Some("routes"));
        assert_eq!(nearest("colour", names), None);
    }
}
