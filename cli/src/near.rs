//! Names that may have been meant.

/// Below this likeness (Jaro-Winkler, 0 to 1) a name is another one: `cats` and `catz` have 0.88, `cats` and `dogs` 0.5.
const LIKE: f64 = 0.8;
/// More than three are no help.
const MOST: usize = 3;

/// The names that look like this one, the likest first.
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut like: Vec<(f64, &str)> = known
        .into_iter()
        .map(|other| (likeness(name, other), other))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .collect();
    like.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    like.into_iter().take(MOST).map(|(_, name)| name).collect()
}

fn likeness(name: &str, other: &str) -> f64 {
    let is_part = name.len() >= 3 && (other.contains(name) || name.contains(other));
    let like = strsim::jaro_winkler(name, other);
    if is_part { like.max(LIKE) } else { like }
}

/// `; did you mean a or b?`, or nothing.
pub fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match near(name, known).as_slice() {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_offered_the_likest_first() {
        let known = ["cats", "cats-v2", "dogs", "efficientnet"];
        for (name, like) in [
            ("catz", &["cats", "cats-v2"][..]),
            ("cat", &["cats", "cats-v2"]),
            ("efficentnet", &["efficientnet"]),
            ("net", &["efficientnet"]),
            ("zebra", &[]),
            ("", &[]),
        ] {
            assert_eq!(near(name, known), like, "{name}");
        }
        assert_eq!(meant("dog", known), "; did you mean dogs?");
        assert_eq!(meant("zebra", known), "");
    }
}
