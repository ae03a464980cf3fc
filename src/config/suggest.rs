//! Suggestions for misspelled names. Pure.

/// Returns the candidate nearest to `word`, the first of equals; `None` without candidates.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.min_by_key(|candidate| distance(word, candidate))
}

/// Returns the number of edits between two names (optimal string alignment). Case does not count, nor
/// does `-` instead of `_`. A name and a part of it (`client-timeout`, `timeout`) are one edit apart.
pub fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let (left, right) = (fold(left), fold(right));
    let (shorter, longer) = if left.len() < right.len() {
        (&left, &right)
    } else {
        (&right, &left)
    };
    // Shorter parts are in many names by chance.
    let is_part = shorter.len() >= 3 && longer != shorter && longer.contains(shorter.as_str());
    let edits = strsim::osa_distance(&left, &right);
    if is_part { edits.min(1) } else { edits }
}

#[cfg(test)]
mod tests {
    use super::*;

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
