-- No transaction with a lower id is in progress.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest
