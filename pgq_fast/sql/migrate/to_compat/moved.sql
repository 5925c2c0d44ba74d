-- How many jobs have been moved and are to be settled.
SELECT (SELECT count(*) FROM {moved_ready_table}) + (SELECT count(*) FROM {moved_deferred_table})
    + (SELECT count(*) FROM {moved_held_table}) AS jobs
