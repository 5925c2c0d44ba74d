-- How many jobs there are to copy, and how many in the log.
SELECT (SELECT count(*) FROM {ready_table}) + (SELECT count(*) FROM {deferred_table})
        + (SELECT count(*) FROM {held_table}) AS jobs,
    (SELECT coalesce(sum(jobs), 0)::bigint FROM {log_batches_table}) AS logged
