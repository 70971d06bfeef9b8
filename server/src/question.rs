//! A question to the store that many have at once.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Asked by one at a time. The others who come meanwhile share the next answer, also when it is none: a store that stands
/// still costs each of them the time of two questions, however many they are.
#[derive(Debug)]
pub struct Question<E> {
    /// Times that it was asked.
    asked: AtomicU64,
    /// What the last one brought that brought nothing, and which of them it was.
    fruitless: Mutex<Option<(u64, E)>>,
}

impl<E> Default for Question<E> {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), fruitless: Mutex::default() }
    }
}

impl<E: Clone> Question<E> {
    /// What is `known` when it is the caller's turn, or what was asked after the caller came, or what `ask` brings.
    pub async fn put<T>(
        &self,
        known: impl FnOnce() -> Option<T>,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let came = self.asked.load(Ordering::SeqCst);
        let mut fruitless = self.fruitless.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        if let Some((_, why)) = fruitless.as_ref().filter(|(question, _)| *question > came) {
            return Err(why.clone());
        }
        let question = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = ask.await;
        if let Err(why) = &answer {
            *fruitless = Some((question, why.clone()));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn fifty_who_ask_at_once_share_what_fails_slowly() {
        let (question, questions) = (Question::default(), AtomicUsize::new(0));
        let ask = || async {
            questions.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err::<(), _>("the store does not answer")
        };
        let began = Instant::now();
        let answers = join_all((0..50).map(|_| question.put(|| None, ask()))).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(
            questions.load(Ordering::SeqCst),
            2,
            "the first one's, and one for all who came behind it"
        );
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn who_comes_later_asks_anew() {
        let question = Question::default();
        assert_eq!(question.put(|| None::<u8>, async { Err("down") }).await, Err("down"));
        assert_eq!(question.put(|| None, async { Ok(1) }).await, Ok(1));
        assert_eq!(question.put(|| Some(2), async { Err("down") }).await, Ok(2), "nobody asks what is known");
    }

    #[tokio::test]
    async fn who_leaves_in_the_middle_of_a_question_holds_up_nobody() {
        let question = Question::default();
        let never = question.put(|| None::<u8>, std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
        assert_eq!(question.put(|| None, async { Ok::<_, &str>(1) }).await, Ok(1));
    }
}
