//! Pods are asked in the background: a pod that does not answer holds up no reconcile.
//!
//! Who is asked is decided by [`crate::observe`]; an answer triggers a reconcile of its service. Bounded: so many questions
//! at once, one for each pod, and longer and longer pauses after each that failed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ortolan_core::observed::Report;
use tokio::sync::{Semaphore, mpsc};

use crate::{index::Key, probe};

/// Questions at once.
const PARALLEL: usize = 32;
/// After the first failure; doubled by each further one.
pub(crate) const PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A pod to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The pod's UID.
    pub uid: String,
    /// Its address.
    pub address: String,
}

#[derive(Clone, Debug)]
enum Answer {
    UnderWay,
    Told(Box<Report>),
    Failed { at: Instant, times: u32 },
}

type Answers = HashMap<Key, HashMap<String, Answer>>;

/// Asks pods and keeps what they said.
#[derive(Clone)]
pub struct Asker {
    permits: Arc<Semaphore>,
    answers: Arc<Mutex<Answers>>,
    triggers: mpsc::UnboundedSender<Key>,
}

impl Asker {
    /// `triggers` hears of each service that has an answer.
    #[must_use]
    pub fn new(triggers: mpsc::UnboundedSender<Key>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(PARALLEL)),
            answers: Arc::default(),
            triggers,
        }
    }

    /// What is known of these pods by UID; the others are asked. Pods that are not named are forgotten. Also answers
    /// when to come back for pods that did not answer.
    pub fn ask(
        &self,
        key: &Key,
        questions: &[Question],
    ) -> (Vec<(String, Report)>, Option<Duration>) {
        let mut all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.is_empty() {
            all.remove(key);
            return (Vec::new(), None);
        }
        let known = all.entry(key.clone()).or_default();
        known.retain(|uid, _| questions.iter().any(|q| q.uid == *uid));
        let (mut reports, mut again) = (Vec::new(), None);
        for question in questions {
            let failures = match known.get(&question.uid) {
                Some(Answer::UnderWay) => continue,
                Some(Answer::Told(report)) => {
                    reports.push((question.uid.clone(), *report.clone()));
                    continue;
                }
                Some(Answer::Failed { at, times }) => {
                    let left = pause(*times).saturating_sub(at.elapsed());
                    if !left.is_zero() {
                        again = again.into_iter().chain([left]).min();
                        continue;
                    }
                    *times
                }
                None => 0,
            };
            known.insert(question.uid.clone(), Answer::UnderWay);
            tokio::spawn(
                self.clone()
                    .question(key.clone(), question.clone(), failures),
            );
        }
        (reports, again)
    }

    async fn question(self, key: Key, question: Question, failures: u32) {
        let Ok(_permit) = self.permits.acquire().await else {
            return;
        };
        let answer = match probe::ask(&question.address).await {
            Ok(report) => Answer::Told(Box::new(report)),
            Err(error) => {
                tracing::debug!(%error, service = key.name, "a pod did not say what it serves");
                Answer::Failed {
                    at: Instant::now(),
                    times: failures + 1,
                }
            }
        };
        let mut all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for it any more when its place is gone.
        if let Some(place) = all
            .get_mut(&key)
            .and_then(|pods| pods.get_mut(&question.uid))
        {
            *place = answer;
            // The receiver is gone only when the process ends.
            let _ = self.triggers.send(key);
        }
    }

    /// Forgets a deleted InferenceService.
    pub fn forget(&self, key: &Key) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// How long to wait before the next try after so many failures in a row: 15 s, doubling up to ten minutes.
pub(crate) fn pause(times: u32) -> Duration {
    let factor = 1 << times.saturating_sub(1).min(10);
    (PAUSE * factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            namespace: "ns".into(),
            name: "m".into(),
        }
    }

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let seconds = [1, 2, 3, 6, 7, 40].map(|times| pause(times).as_secs());
        assert_eq!(seconds, [15, 30, 60, 480, 600, 600]);
    }

    #[tokio::test]
    async fn a_pod_that_does_not_answer_is_asked_once_and_again_only_after_a_pause() {
        let (triggers, mut triggered) = mpsc::unbounded_channel();
        let asker = Asker::new(triggers);
        // An address of documentation that no connection is made to: not an address at all.
        let question = Question {
            uid: "1".into(),
            address: "not an address".into(),
        };
        let questions = [question];
        assert_eq!(asker.ask(&key(), &questions), (Vec::new(), None));
        assert_eq!(
            asker.ask(&key(), &questions),
            (Vec::new(), None),
            "under way"
        );
        assert_eq!(triggered.recv().await, Some(key()));
        let (reports, again) = asker.ask(&key(), &questions);
        assert!(reports.is_empty());
        assert!(again.is_some_and(|again| again <= PAUSE && !again.is_zero()));
        assert_eq!(asker.ask(&key(), &[]), (Vec::new(), None));
        assert!(asker.answers.lock().expect("a lock").is_empty());
    }
}
