//! Names that somebody may have meant.

/// Letters of a name that is looked at.
const MAX_NAME: usize = 60;

/// The one that is spelled most like this, or that it ends with, if there is one.
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let letters = name.chars().take(MAX_NAME + 1).count();
    if letters > MAX_NAME {
        return None;
    }
    // One in a short name.
    let forgiven = 1..=(letters / 3).clamp(1, 3);
    let slips =
        known.clone().map(|one| (slips(name, one), one)).filter(|(slips, _)| forgiven.contains(slips));
    let ends = |one: &&str| name.strip_suffix(one).is_some_and(|before| before.ends_with('_'));
    slips.min_by_key(|(slips, _)| *slips).map(|(_, one)| one).or_else(|| known.clone().find(ends))
}

/// How many letters have to be added, taken away, changed, or change places with the next.
fn slips(one: &str, other: &str) -> usize {
    let [one, other] = [one, other].map(|text| text.chars().collect::<Vec<_>>());
    // Of the beginnings of one, by how much of the other: this one's, the last one's, the one's before.
    let mut rows: [Vec<usize>; 3] = Default::default();
    for at in 0..=one.len() {
        rows.rotate_right(1);
        let [row, last, before] = &mut rows;
        row.clear();
        for column in 0..=other.len() {
            let same = at > 0 && column > 0 && one[at - 1] == other[column - 1];
            let crossed =
                at > 1 && column > 1 && one[at - 1] == other[column - 2] && one[at - 2] == other[column - 1];
            let least = match (at, column) {
                (0, count) | (count, 0) => count,
                _ => (last[column] + 1).min(row[column - 1] + 1).min(last[column - 1] + usize::from(!same)),
            };
            row.push(if crossed { least.min(before[column - 2] + 1) } else { least });
        }
    }
    rows[0].last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_two_are_forgiven_and_no_more() {
        let known = ["repository", "repository_id", "ref", "protected", "actor", "oidc"];
        for (name, meant) in [
            ("repositry", Some("repository")),
            ("repositoryid", Some("repository_id")),
            ("repopository", Some("repository")),
            ("actors", Some("actor")),
            ("oicd", Some("oidc")),
            ("reff", Some("ref")),
            ("rex", Some("ref")),
            ("ref_protected", Some("protected")),
            ("rxx", None),
            ("protected", None),
            ("branch", None),
            ("", None),
        ] {
            assert_eq!(near(name, known.into_iter()), meant, "{name}");
        }
        let long = "x".repeat(MAX_NAME);
        assert_eq!(near(&format!("{}y", &long[1..]), [&*long].into_iter()), Some(&*long));
        assert_eq!(near(&format!("{long}y"), [&*long].into_iter()), None);
        for (one, other, count) in
            [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("", "", 0)]
        {
            assert_eq!(slips(one, other), count, "{one} {other}");
        }
    }
}
