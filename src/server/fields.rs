//! Field lines as they came: in their order, repeats included, in one copy of their head. No I/O.
//!
//! For both directions: a message is passed on, not understood, so its lines are kept as slices
//! rather than in a map, and names keep their case.

use std::fmt;
use std::ops::Range;

/// The field lines of a head.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// Where a field line lies in [`Fields::bytes`].
#[derive(Clone)]
struct Line {
    name: Range<u32>,
    value: Range<u32>,
}

impl Fields {
    /// Copies `head` once, of which all `lines` must be slices.
    pub fn copy_of(head: &[u8], lines: &[httparse::Header<'_>]) -> Fields {
        // A head is far shorter than a u32 can say.
        let range_of = |piece: &[u8]| {
            let start = (piece.as_ptr().addr() - head.as_ptr().addr()) as u32;
            start..start + piece.len() as u32
        };
        let lines = lines.iter().map(|line| Line {
            name: range_of(line.name.as_bytes()),
            value: range_of(line.value),
        });
        Fields {
            lines: lines.collect(),
            bytes: head.to_vec(),
        }
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// Name and value of each line.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let piece = |range: &Range<u32>| &self.bytes[range.start as usize..range.end as usize];
        self.lines
            .iter()
            .map(move |line| (piece(&line.name), piece(&line.value)))
    }

    /// The first value of the field `name`, in whatever case.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of all lines of the field `name`, in whatever case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Drops all lines of the field `name`.
    pub fn remove(&mut self, name: &str) {
        let Fields { bytes, lines } = self;
        lines.retain(|line| !line.is_of(name, bytes));
    }

    /// Makes all lines of the field `name` one, in the place of the first, with `value`.
    pub fn unite(&mut self, name: &str, value: &str) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.as_bytes());
        let united = start..self.bytes.len() as u32;
        let Fields { bytes, lines } = self;
        let mut is_first = true;
        lines.retain_mut(|line| {
            if !line.is_of(name, bytes) {
                return true;
            }
            line.value = united.clone();
            std::mem::replace(&mut is_first, false)
        });
    }
}

impl Line {
    fn is_of(&self, name: &str, bytes: &[u8]) -> bool {
        let field = &bytes[self.name.start as usize..self.name.end as usize];
        field.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

/// Names only: values hold credentials and cookies.
impl fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        formatter.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
impl Fields {
    /// The fields of `Name: value` pairs.
    pub fn of(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        let mut put = |text: &str| {
            let start = fields.bytes.len() as u32;
            fields.bytes.extend_from_slice(text.as_bytes());
            start..fields.bytes.len() as u32
        };
        let lines = pairs.iter().map(|(name, value)| Line {
            name: put(name),
            value: put(value),
        });
        fields.lines = lines.collect();
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> Fields {
        Fields::of(&[("A", "1"), ("b", "2"), ("a", "3"), ("C", "4")])
    }

    #[test]
    fn names_are_found_in_any_case_and_kept_as_they_came() {
        let fields = four();
        assert_eq!(fields.value("a"), Some(&b"1"[..]));
        assert_eq!(fields.values("A").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(fields.value("d"), None);
        assert_eq!(fields.iter().next(), Some((&b"A"[..], &b"1"[..])));
    }

    #[test]
    fn lines_can_be_removed_and_united() {
        let mut fields = four();
        fields.remove("B");
        fields.unite("a", "13");
        assert!(fields == Fields::of(&[("A", "13"), ("C", "4")]));
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", Fields::of(&[("Authorization", "Bearer fake")]));
        assert_eq!(shown, r#"["Authorization"]"#);
    }
}
