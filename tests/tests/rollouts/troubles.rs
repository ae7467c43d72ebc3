//! Something happens to one write or one read of the operator, or to all of its watches at once, anywhere in a rollout:
//! the end is that of a rollout that nobody disturbed.
//!
//! Of each [`Story`] one rollout is left alone, and tells how many writes and reads there are; then each of them is hit in
//! turn, in a namespace of its own. `ORTOLAN_ROLLOUT_FAULTS=all` plays all of it, in `ORTOLAN_ROLLOUT_AT_ONCE` (8)
//! namespaces at a time, `ORTOLAN_ROLLOUT_FAULTS='Past Read(0'` what has one of these words in its name; without it a
//! sample is played, the same each time. What can happen: [`ortolan_tests::tap`]. An operator that ends by itself, because
//! its first request was not answered, is started again, as the kubelet does.
//!
//! The end is everything that the operator made, and who owns which field of it; on the way the candidate's share may fall
//! where pods are not seen any more, and never rises but by its steps.

use std::{fmt::Write as _, panic::AssertUnwindSafe, time::Instant};

use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use ortolan_tests::{
    snapshot::snapshot_uncounted,
    tap::{
        Fault, Freeze,
        reads::{LATE, Outbreak, ReadFault, to_the_past},
    },
};

use super::*;

/// A replica that takes over has watches that are so many writes behind.
const BEHIND: usize = 3;
/// When nothing has changed for so long nothing will: longer than what is late, and than the five seconds after which the
/// operator writes numbers of pods.
const QUIET: Duration = Duration::from_secs(LATE.as_secs() + 5);

/// How a rollout goes when nobody disturbs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Two steps, and the candidate is promoted.
    Canary,
    /// The candidate fails nine requests of ten in the first step, and is taken back.
    TakenBack,
    /// All at once.
    BlueGreen,
    /// The old revision's pods end first.
    Recreate,
}

/// What happens to the operator.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// It is killed at its n-th write, and another one starts.
    Killed(usize, Freeze),
    /// The same, and what the other one lists first is [`BEHIND`] writes old.
    Behind(usize),
    /// Its n-th write goes wrong.
    Write(usize, Fault),
    /// Its n-th read goes wrong.
    Read(usize, ReadFault),
    /// After its n-th write all of its watches go wrong.
    Watches(usize, Outbreak),
}

impl Story {
    fn spec(self, file: &str) -> Value {
        let mut spec = short(file);
        let strategy = match self {
            Self::Canary | Self::TakenBack => return spec,
            Self::BlueGreen => "BlueGreen",
            Self::Recreate => "Recreate",
        };
        let rollout = spec["rollout"].as_object_mut().expect("an object");
        rollout.remove("steps");
        rollout.insert("strategy".into(), json!(strategy));
        spec
    }

    async fn until_its_end(self, play: &Play, old: &str, new: &str) {
        if self == Self::TakenBack {
            play.until_failed(new, old).await;
        } else {
            play.until_promoted(new).await;
        }
    }

    /// The candidate's shares, in their order.
    const fn shares(self) -> &'static [i32] {
        match self {
            Self::Canary => &[0, 10, 50, 100],
            Self::TakenBack => &[0, 10, 0],
            Self::BlueGreen | Self::Recreate => &[0, 100],
        }
    }
}

impl Trouble {
    /// Whether what the operator sees of pods is older than what it saw before.
    const fn goes_back_in_time(self) -> bool {
        matches!(self, Self::Behind(_) | Self::Watches(_, Outbreak::Past))
    }
}

/// How a troubled rollout went.
struct Run {
    trouble: Trouble,
    /// Whether the trouble came before the end.
    came: bool,
    end: String,
    writes: usize,
    reads: Vec<String>,
    took: Duration,
}

/// The resourceVersion of now.
async fn version(w: &World) -> String {
    let list = w.api::<Pod>().list(&ListParams::default().limit(1)).await;
    let version = list.expect("a list").metadata.resource_version;
    version.expect("a list has a version")
}

async fn troubled(w: Arc<World>, story: Story, trouble: Trouble) -> Run {
    let started = Instant::now();
    let mut play = Play::start(&w).await;
    let old = play.first(story.spec("a")).await;
    // Pods that end before they were asked are told of with less, and who asks them first is a matter of chance.
    w.until_service("the old pods were asked", "m", |service| {
        let status = service.status.iter();
        status
            .flat_map(|status| &status.revisions)
            .all(|revision| revision.model.is_some())
    })
    .await;
    play.kill().await;
    let past = version(&w).await;
    if story == Story::TakenBack {
        play.routers.conduct(&named(&story.spec("b")), HOPELESS);
    }
    let new = play.change(story.spec("b")).await;
    let tap = match trouble {
        Trouble::None => Tap::default(),
        Trouble::Killed(n, freeze) => Tap::freezing(n, freeze),
        Trouble::Behind(n) => Tap::freezing(n, Freeze::After),
        Trouble::Write(n, fault) => Tap::faulty(n, fault),
        Trouble::Read(n, fault) => Tap::misread(n, fault, &past),
        Trouble::Watches(n, outbreak) => Tap::unwatched(n, outbreak, &past),
    };
    play.operate(tap.clone(), None);
    let a_moment_ago = async {
        if let Trouble::Behind(n) = trouble {
            while tap.writes().len() + BEHIND < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let version = version(&w).await;
        tap.frozen().await;
        version
    };
    tokio::select! {
        version = a_moment_ago => {
            play.kill().await;
            let next = match trouble {
                Trouble::Behind(_) => Tap::behind(&version),
                _ => Tap::default(),
            };
            play.operate(next, None);
            story.until_its_end(&play, &old, &new).await;
        }
        () = ends_by_itself(&play) => {
            play.kill().await;
            play.operate(Tap::default(), None);
            story.until_its_end(&play, &old, &new).await;
        }
        () = story.until_its_end(&play, &old, &new) => {}
    }
    look_at_the_way(&play, story, trouble, &new).await;
    let (writes, reads) = (tap.writes().len(), tap.reads());
    let came = match trouble {
        Trouble::None => false,
        Trouble::Killed(..) | Trouble::Behind(_) => tap.is_frozen(),
        Trouble::Write(n, _) | Trouble::Watches(n, _) => writes > n,
        Trouble::Read(n, _) => reads.len() > n,
    };
    let mut last = snapshot_uncounted(&w).await;
    w.until("nothing changes any more", async || {
        tokio::time::sleep(QUIET).await;
        let before = std::mem::replace(&mut last, snapshot_uncounted(&w).await);
        if before == last {
            Ok(())
        } else {
            Err("it still changes".into())
        }
    })
    .await;
    Run {
        trouble,
        came,
        end: last,
        writes,
        reads,
        took: started.elapsed(),
    }
}

/// Until the operator has ended, although nobody ended it.
async fn ends_by_itself(play: &Play) {
    while !play.operator.as_ref().is_some_and(Operator::has_ended) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What users and people saw meanwhile.
async fn look_at_the_way(play: &Play, story: Story, trouble: Trouble, new: &str) {
    let shares = play.shares(new);
    if trouble.goes_back_in_time() {
        let mut reached = 0;
        for share in shares.iter().filter(|share| **share > 0) {
            let at = story.shares().iter().position(|known| known == share);
            let at = at.unwrap_or_else(|| panic!("{trouble:?}: {shares:?}"));
            assert!(
                at <= reached + 1,
                "{trouble:?}: a step was left out: {shares:?}"
            );
            reached = reached.max(at);
        }
    } else {
        assert_eq!(shares, story.shares(), "{story:?} {trouble:?}");
    }
    let end = if story == Story::TakenBack {
        "CandidateFails"
    } else {
        "Promoted"
    };
    for (reason, words) in [("RolloutStarted", new), (end, new)] {
        let told = play.told(reason, words).await;
        // A write of the mark or of the status that was made and not answered is decided again.
        assert!(
            told <= 2,
            "{story:?} {trouble:?}: {reason} was told {told} times"
        );
    }
}

/// Numbers that look like chance and are the same each time: splitmix64.
fn sample(seed: u64, below: usize) -> usize {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % below as u64).expect("it is below a usize")
}

/// What can happen to the n-th write.
fn to_a_write(n: usize) -> Vec<Trouble> {
    let mut all = vec![
        Trouble::Killed(n, Freeze::Before),
        Trouble::Killed(n, Freeze::After),
        Trouble::Behind(n),
    ];
    let faults = [
        Fault::Dropped,
        Fault::Unanswered,
        Fault::Late,
        Fault::Twice,
        Fault::Failed,
    ];
    all.extend(faults.map(|fault| Trouble::Write(n, fault)));
    all.extend(Outbreak::ALL.map(|outbreak| Trouble::Watches(n, outbreak)));
    all
}

/// What is asked for; else so many of each kind of request, of different kinds of trouble.
fn troubles(undisturbed: &Run, few: usize, seed: u64) -> Vec<Trouble> {
    let writes: Vec<Vec<Trouble>> = (0..undisturbed.writes).map(to_a_write).collect();
    let of_reads = |n| ReadFault::ALL.map(|fault| Trouble::Read(n, fault));
    let reads: Vec<[Trouble; 8]> = (0..undisturbed.reads.len()).map(of_reads).collect();
    if let Ok(asked) = std::env::var("ORTOLAN_ROLLOUT_FAULTS") {
        let all = writes.into_iter().flatten();
        let all = all.chain(reads.into_iter().flatten());
        let is_asked_for = |trouble: &Trouble| {
            let name = format!("{trouble:?}");
            asked == "all" || asked.split(' ').any(|word| name.contains(word))
        };
        return all.filter(is_asked_for).collect();
    }
    let mut some = Vec::new();
    for n in 0..few {
        let drawn = |of: u64, below| sample(seed * 1000 + 10 * n as u64 + of, below);
        // Kinds that follow each other, at any of the writes.
        let write = &writes[drawn(0, writes.len())];
        some.push(write[(drawn(1, 3) + 3 * n) % write.len()]);
        let read = &reads[drawn(2, reads.len())];
        some.push(read[(drawn(3, 2) + 2 * n) % read.len()]);
    }
    some
}

fn at_once() -> usize {
    let asked = std::env::var("ORTOLAN_ROLLOUT_AT_ONCE").ok();
    asked.map_or(8, |text| text.parse().expect("a whole number"))
}

/// Lines that `a` has oftener than `b`, and how often.
fn lines<'a>(a: &'a str, b: &str) -> Vec<(usize, &'a str)> {
    let of = |text: &str, line: &str| text.lines().filter(|one| *one == line).count();
    let all: BTreeSet<&str> = a.lines().collect();
    let oftener = all
        .into_iter()
        .map(|line| (of(a, line).saturating_sub(of(b, line)), line));
    oftener.filter(|(more, _)| *more > 0).collect()
}

fn whatever_happens(story: Story, few: usize) {
    on_stage(async |w| {
        let begun = Instant::now();
        let alone = troubled(Arc::new(w.beside("none").await), story, Trouble::None).await;
        let troubles = troubles(&alone, few, story as u64 + 1);
        println!(
            "{story:?}: undisturbed {} writes, {} reads, {:?}; troubles: {troubles:?}",
            alone.writes,
            alone.reads.len(),
            alone.took
        );
        let all = troubles.len();
        let runs = stream::iter(troubles.into_iter().enumerate()).map(async |(n, trouble)| {
            let world = Arc::new(w.beside(&format!("t{n}")).await);
            let played = AssertUnwindSafe(troubled(Arc::clone(&world), story, trouble));
            let played = played.catch_unwind().await;
            if played.is_err() {
                eprintln!("{story:?} {trouble:?} failed{}", world.story().await);
            }
            (trouble, played)
        });
        let mut runs = std::pin::pin!(runs.buffer_unordered(at_once()));
        let (mut came, mut wrong) = (0, String::new());
        while let Some((trouble, run)) = runs.next().await {
            match run {
                Err(_) => drop(writeln!(wrong, "{story:?} {trouble:?}: as told above")),
                Ok(run) => {
                    came += usize::from(run.came);
                    if run.end != alone.end {
                        let (more, less) =
                            (lines(&run.end, &alone.end), lines(&alone.end, &run.end));
                        let _ = writeln!(
                            wrong,
                            "{story:?} {:?}: there is {more:#?} in place of {less:#?}",
                            run.trouble
                        );
                    }
                }
            }
        }
        println!(
            "{story:?}: {came} of {all} troubles came before the end; {} s",
            begun.elapsed().as_secs()
        );
        assert!(wrong.is_empty(), "{wrong}");
        assert!(
            came * 2 > all,
            "only {came} of {all} troubles came before the end"
        );
    });
}

#[test]
fn whatever_happens_to_a_request_a_canary_ends_the_same() {
    whatever_happens(Story::Canary, 4);
}

#[test]
fn whatever_happens_to_a_request_a_bad_candidate_is_taken_back() {
    whatever_happens(Story::TakenBack, 2);
}

#[test]
fn whatever_happens_to_a_request_blue_green_ends_the_same() {
    whatever_happens(Story::BlueGreen, 1);
}

#[test]
fn whatever_happens_to_a_request_recreate_ends_the_same() {
    whatever_happens(Story::Recreate, 1);
}

#[test]
fn a_question_to_the_past_names_the_exact_version() {
    let past = |uri: &str| {
        let (uri, is_one) = to_the_past(&uri.parse().expect("a URI"), "7")?;
        Some((uri.to_string(), is_one))
    };
    let exact = "resourceVersion=7&resourceVersionMatch=Exact";
    let of = "/api/v1/namespaces/n";
    assert_eq!(
        past(&format!(
            "{of}/pods?&labelSelector=a%3Db&limit=500&resourceVersion=0"
        )),
        Some((
            format!("{of}/pods?labelSelector=a%3Db&limit=500&{exact}"),
            false
        ))
    );
    assert_eq!(
        past(&format!("{of}/services/m")),
        Some((
            format!("{of}/services?fieldSelector=metadata.name%3Dm&{exact}"),
            true
        ))
    );
    assert_eq!(past("/version"), None);
}
