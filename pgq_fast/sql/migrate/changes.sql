-- Jobs that changed since they may have been copied. At least as durable as the copies. Where a job is
-- in the lease layout is known by what the row says besides its id; without an id, all jobs are gone.
CREATE {jobs_unlogged} TABLE {changes_table} (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id bigint,
    entrypoint text,
    priority integer,
    execute_after timestamptz
);
