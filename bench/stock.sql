-- pgbench: one ticket of the hot event, guarded by the row's own condition.
UPDATE hot_event SET available = available - 1 WHERE id = 1 AND available >= 1;
