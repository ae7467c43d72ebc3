//! Which settings are tried. Pure.

use std::str::FromStr;

/// `1,2,4`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<usize>> = text
            .split(',')
            .map(|part| part.trim().parse().ok().filter(|n| (1..=1024).contains(n)))
            .collect();
        let mut numbers =
            numbers.ok_or_else(|| format!("{text:?}: write numbers from 1 to 1024, as 1,2,4"))?;
        numbers.sort_unstable();
        numbers.dedup();
        Ok(Self(numbers))
    }
}

/// Sessions beside each other and threads in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layout {
    /// Sessions.
    pub sessions: usize,
    /// Threads inside each.
    pub threads: usize,
}

impl Layout {
    /// How many CPUs it can keep busy.
    #[must_use]
    pub const fn cpus(self) -> usize {
        self.sessions * self.threads
    }
}

/// The layouts for a machine of `cpus`: with one thread every power of two of sessions and all CPUs; with more threads
/// one session, and as many as there is room for. Numbers that the user chose are crossed instead.
#[must_use]
pub fn layouts(cpus: usize, sessions: Option<&Numbers>, threads: Option<&Numbers>) -> Vec<Layout> {
    let threads = threads.map_or_else(|| powers(cpus), |numbers| numbers.0.clone());
    let mut layouts = Vec::new();
    for threads in threads {
        let room = (cpus / threads).max(1);
        let sessions = match sessions {
            Some(numbers) => numbers.0.clone(),
            None if threads == 1 => powers(room),
            None => vec![1, room],
        };
        layouts.extend(
            sessions
                .into_iter()
                .map(|sessions| Layout { sessions, threads }),
        );
    }
    layouts.sort_unstable();
    layouts.dedup();
    layouts
}

/// The batch sizes: powers of two up to `most`, or the user's numbers; only 1 when the model takes no batches.
#[must_use]
pub fn batches(batchable: bool, chosen: Option<&Numbers>, most: usize) -> Vec<usize> {
    match (batchable, chosen) {
        (false, _) => vec![1],
        (true, Some(numbers)) => numbers.0.clone(),
        (true, None) => powers(most),
    }
}

/// 1, 2, 4 … and `most` itself.
fn powers(most: usize) -> Vec<usize> {
    let mut powers: Vec<usize> = std::iter::successors(Some(1), |power| Some(power * 2))
        .take_while(|power| *power < most)
        .collect();
    powers.push(most);
    powers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(layouts: &[Layout]) -> Vec<(usize, usize)> {
        layouts.iter().map(|at| (at.sessions, at.threads)).collect()
    }

    #[test]
    fn small_machines_are_tried_whole() {
        assert_eq!(shown(&layouts(1, None, None)), [(1, 1)]);
        assert_eq!(shown(&layouts(2, None, None)), [(1, 1), (1, 2), (2, 1)]);
        assert_eq!(
            shown(&layouts(6, None, None)),
            [
                (1, 1),
                (1, 2),
                (1, 4),
                (1, 6),
                (2, 1),
                (3, 2),
                (4, 1),
                (6, 1)
            ]
        );
    }

    #[test]
    fn the_users_numbers_are_crossed() {
        let sessions = "2,1,2".parse().unwrap();
        let threads = "3".parse().unwrap();
        assert_eq!(
            shown(&layouts(2, Some(&sessions), Some(&threads))),
            [(1, 3), (2, 3)]
        );
        assert_eq!(batches(true, Some(&"8".parse().unwrap()), 32), [8]);
        assert_eq!(batches(false, Some(&"8".parse().unwrap()), 32), [1]);
        assert_eq!(batches(true, None, 32), [1, 2, 4, 8, 16, 32]);
        for text in ["", "0", "1,,2", "a", "5000"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_default_layouts_never_ask_for_more_cpus_than_there_are(cpus in 1..256_usize) {
            let layouts = layouts(cpus, None, None);
            prop_assert!(layouts.iter().all(|layout| layout.cpus() <= cpus));
            let all_sessions = Layout { sessions: cpus, threads: 1 };
            let all_threads = Layout { sessions: 1, threads: cpus };
            prop_assert!(layouts.contains(&all_sessions) && layouts.contains(&all_threads));
            prop_assert!(layouts.len() <= 30);
        }
    }
}
