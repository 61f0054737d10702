//! The tracker's half of the double.

use super::*;

#[async_trait]
impl TrackerStore for MemState {
    async fn tracked(&self, cid: Cid) -> Result<Option<TrackerRecord>, StateError> {
        self.inner.lock().written.tracked(&cid)
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<TrackedTask>, StateError> {
        let inner = self.inner.lock();
        let tasks = inner.written.tasks_by_urgency();
        Ok(tasks.into_iter().filter(|(due, _task)| *due <= now).take(limit).map(|(_due, task)| task.clone()).collect())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StateError> {
        Ok(self.inner.lock().written.tasks_by_urgency().into_iter().map(|(due, _task)| due).min())
    }

    async fn settle(&self, settled: Vec<Settled>) -> Result<Vec<bool>, StateError> {
        let mut inner = self.inner.lock();
        let mut counted = Vec::with_capacity(settled.len());
        let mut changes = Changes::default();
        let mut state = State { tracker: inner.written.tracker.clone(), ..State::default() };
        for job in settled {
            let counts = state.tracked(&job.cid)?.is_some_and(|record| record.generation == job.generation);
            if counts {
                let change = (job.cid, job.record);
                state.write(&Changes { tracker: vec![change.clone()], ..Changes::default() });
                changes.tracker.push(change);
            }
            counted.push(counts);
        }
        if !changes.tracker.is_empty() {
            inner.write(changes);
        }
        Ok(counted)
    }

    async fn by_status(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: usize,
    ) -> Result<Vec<TrackedTask>, StateError> {
        let rows = self.inner.lock().written.rows(&Scan::ByStatus { filter, after });
        let task = |row: Row| row.tracked.map(|record| TrackedTask { cid: row.cid, record });
        Ok(rows.into_iter().filter_map(task).take(limit).collect())
    }

    fn counts(&self) -> TrackerCounts {
        let mut counts = TrackerCounts::default();
        for task in self.inner.lock().written.tracker.values() {
            counts.add(task.record.status);
        }
        counts
    }
}
