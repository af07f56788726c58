//! The nearest known name: what somebody who mistyped probably meant.

/// Longest name that is compared, in bytes; what is longer is no slip of the finger.
const LONGEST: usize = 48;

/// Most names that are worth comparing where a config may hold any number of them: the work is the product of the
/// mistakes and the names.
pub(super) const MOST_COMPARED: usize = 500;

/// Finds the name that is fewest edits away from `word`, without regard to case.
///
/// An edit is a letter added, dropped, replaced or swapped with its neighbour. At most a third of the letters
/// may be wrong (two in a word of four or five); `None` if no name is as near as that.
pub(super) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let bound = match word.len() {
        1..=3 => 1,
        4..=5 => 2,
        letters => letters / 3,
    };
    names
        .into_iter()
        .map(|name| (distance(word.as_bytes(), name.to_ascii_lowercase().as_bytes()), name))
        .filter(|(edits, name)| *edits <= bound && *edits < name.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// The number of edits between two words (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(above.len());
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut edits = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"prot", b"port"), 1, "a swap of neighbours is one edit");
        assert_eq!(distance(b"same", b"same"), 0);
    }

    #[test]
    fn only_near_names_are_offered() {
        let names = ["inbounds", "outbounds", "log", "dns"];
        assert_eq!(nearest("outbunds", names), Some("outbounds"));
        assert_eq!(nearest("OUTBOUND", names), Some("outbounds"));
        assert_eq!(nearest("lgo", names), Some("log"));
        assert_eq!(nearest("zebra", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), names), None);
    }
}
