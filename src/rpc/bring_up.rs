//! What an agent does for a prepared instance when it starts: the volume is mounted, and a database that should run runs.

use super::dispatch::Dispatcher;
use super::methods::ensure_volume;
use crate::instance::gate::Lane;
use crate::instance::turn::Ticket;
use crate::instance::{Operation, Phase};
use datastore_api::{Health, chain};
use tracing::{error, info};

impl Dispatcher {
    /// Takes a turn of its own in both lanes, before what is taken up from the journal and any request that arrives later. Does nothing for an instance that is not prepared, nor
    /// for a database that was stopped on purpose.
    pub fn bring_up(&self) {
        if self.ctx.publisher.now().phase != Phase::Ready {
            return;
        }
        let this = self.clone();
        let tickets = [Lane::Main, Lane::Role].map(|lane| self.turn(lane).ticket());
        self.tasks.spawn(async move {
            let _held = futures_util::future::join_all(tickets.map(Ticket::wait)).await;
            let operation = Operation {
                id: "start-up".to_owned(),
                method: "start-up".to_owned(),
                step: None,
            };
            this.ctx.publisher.update(|view| view.operation = Some(operation));
            this.raise().await;
            this.ctx.publisher.update(|view| view.operation = None);
        });
    }

    async fn raise(&self) {
        let ctx = &self.ctx;
        if ctx.settings.volume_support
            && let Err(failure) = ensure_volume(ctx, None).await
        {
            error!(
                error = failure.chain(),
                "the data volume is not there; the database is left alone"
            );
            ctx.look().await;
            return;
        }
        if let Health::Crashed { reason } = ctx.look().await {
            info!(reason, "the database should run and does not; starting it");
            if let Err(failure) = ctx.datastore.start().await {
                error!(error = chain(&failure), "could not start the database");
            }
            ctx.look().await;
        }
    }
}
