//! The request `backfill` of the control socket.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    input::find,
    job::{Job, Order},
    queue::Backfills,
};
use crate::control::{Command, Refusal, Told};

/// Of the request. Its parameters are an [`Order`], what it tells and its result a
/// [`Report`](super::Report).
pub const NAME: &str = "backfill";

/// Orders a job and tells how far it is. Who hangs up cancels it.
pub struct BackfillCommand(pub Arc<Backfills>);

/// Cancels the job of a client that is gone; one that is over is not touched by it.
struct Guard<'b> {
    backfills: &'b Backfills,
    job: Arc<Job>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.backfills.cancel(&self.job);
    }
}

#[async_trait(?Send)]
impl Command for BackfillCommand {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal> {
        let order: Order = serde_json::from_value(parameters).map_err(Refusal::bad_request)?;
        if let Some(path) = order.paths.iter().find(|path| !path.is_absolute()) {
            return Err(Refusal::bad_request(format!(
                "{} is not an absolute path",
                path.display()
            )));
        }
        let inputs = find(&order.paths).map_err(Refusal::bad_request)?;
        let job = self.0.submit(order, inputs).await?;
        let mut reports = job.follow();
        let _guard = Guard { backfills: &self.0, job };
        loop {
            let report = reports.borrow_and_update().clone();
            if report.is_over() {
                return serde_json::to_value(report).map_err(Refusal::bad_request);
            }
            told.tell(&report).await;
            if reports.changed().await.is_err() {
                return Err(Refusal::new("stopping", "the daemon stops"));
            }
        }
    }
}
