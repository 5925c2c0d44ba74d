-- What holds for the rest of the transaction in which the dashboard reads, and for it only: $1 is the
-- statement_timeout in milliseconds.
--
-- A look at a queue must not become a scan of it because the statistics are of another time, and
-- every statement of these folders has an index for its order: so the other ways are switched off.
SELECT set_config('transaction_read_only', 'on', true),
    set_config('statement_timeout', $1::text, true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true),
    set_config('enable_incremental_sort', 'off', true),
    -- Each join here looks up a few rows by their keys.
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_material', 'off', true),
    -- To compile a statement takes longer than to run one of these.
    set_config('jit', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true)
