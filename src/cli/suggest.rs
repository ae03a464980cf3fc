//! Which known name somebody who made a typing mistake had in mind. Pure.

/// The candidate that is nearest to `word`, the first of equals; `None` where there are none.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates.min_by_key(|candidate| distance(word, candidate))
}

/// How many mistakes lie between two names, not minding case and the kind of dash. A name that holds
/// the other one whole (`timeout` for `client-timeout`) is one mistake away.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let (left, right) = (fold(left), fold(right));
    let (shorter, longer) = if left.len() < right.len() {
        (&left, &right)
    } else {
        (&right, &left)
    };
    // Shorter pieces turn up in names by chance.
    let is_part = shorter.len() >= 3 && longer != shorter && longer.contains(shorter.as_str());
    let edits = edit_distance(&left, &right);
    if is_part { edits.min(1) } else { edits }
}

/// Damerau-Levenshtein distance (optimal string alignment): insertions, deletions, replacements and
/// swapped neighbours.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    // Three rows of the table are enough: a swap looks two rows back.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let differs = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (above[column - 1] + differs)
                .min(above[column] + 1)
                .min(current[column - 1] + 1);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(before[column - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (left, right, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("port", "port", 0),
            ("prot", "port", 1),
            ("por", "port", 1),
            ("sitting", "kitten", 3),
        ] {
            assert_eq!(edit_distance(left, right), edits, "{left} {right}");
            assert_eq!(edit_distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn a_part_of_a_name_and_another_spelling_find_it() {
        let names = ["port", "host", "log-level", "log-file", "client-timeout"];
        for (word, name) in [
            ("prot", "port"),
            ("timeout", "client-timeout"),
            ("LOG_FILE", "log-file"),
            ("loglevel", "log-level"),
            ("listen-port", "port"),
        ] {
            assert_eq!(nearest(word, names.into_iter()), Some(name), "{word}");
        }
    }
}
