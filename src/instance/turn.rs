//! One change at a time, in arrival order.
//!
//! A ticket is drawn at once when a request arrives; its own task waits for the turn. Losing a connection or dropping a
//! ticket never lets a later one overtake an earlier one that still runs.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The queue.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Ends when the newest ticket's turn is over.
    tail: Option<watch::Receiver<()>>,
    waiting: usize,
}

/// A place in the queue.
#[derive(Debug)]
pub struct Ticket {
    turn: Turn,
    before: Option<watch::Receiver<()>>,
    over: Option<watch::Sender<()>>,
}

/// The turn itself; over when dropped.
#[derive(Debug)]
pub struct Held {
    _over: watch::Sender<()>,
}

impl Turn {
    /// Draws the next ticket.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let (over, tail) = watch::channel(());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        let before = state.tail.replace(tail);
        Ticket {
            turn: self.clone(),
            before,
            over: Some(over),
        }
    }

    /// How many tickets wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    fn left(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }
}

impl Ticket {
    /// Waits for the turn.
    pub async fn wait(mut self) -> Held {
        // Left in its place while we wait: should the wait be dropped, the drop goes on waiting with it.
        if let Some(before) = &mut self.before {
            // The sender never sends; an error means that the earlier turn is over.
            while before.changed().await.is_ok() {}
        }
        self.before = None;
        self.turn.left();
        Held {
            _over: self.over.take().expect("taken only here and in drop"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(over) = self.over.take() else { return };
        self.turn.left();
        let Some(mut before) = self.before.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while before.changed().await.is_ok() {}
                drop(over);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn turns_follow_the_order_of_arrival() {
        let turn = Turn::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tickets: Vec<_> = (0..20).map(|n| (n, turn.ticket())).collect();
        let mut tasks = Vec::new();
        for (n, ticket) in tickets.into_iter().rev() {
            let order = order.clone();
            tasks.push(tokio::spawn(async move {
                let _held = ticket.wait().await;
                tokio::task::yield_now().await;
                order.lock().unwrap().push(n);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!(turn.waiting(), 0);
    }

    #[tokio::test]
    async fn a_dropped_ticket_lets_nobody_overtake() {
        let turn = Turn::default();
        let first = turn.ticket();
        let second = turn.ticket();
        let third = turn.ticket();
        let fourth = turn.ticket();
        let held = first.wait().await;
        // Given up while it waits already.
        let mut waiting = Box::pin(second.wait());
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        drop(waiting);
        drop(third);
        let mut fourth = tokio::spawn(async move { drop(fourth.wait().await) });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut fourth).await.is_err());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), fourth).await.unwrap().unwrap();
    }
}
