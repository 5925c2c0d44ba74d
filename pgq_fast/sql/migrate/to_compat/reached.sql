-- The last of the rows in <rows>, from which the next batch goes on.
    -- [ready
    entrypoint, (~priority)::text AS place, id
FROM <rows>
ORDER BY entrypoint DESC, ~priority DESC, id DESC
    -- ready]
    -- [deferred
    entrypoint, id,
    -- Whatever the session's DateStyle; there is no such spelling of infinity.
    coalesce(
        nullif(to_char(execute_after AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ''),
        execute_after::text
    ) AS place
FROM <rows>
ORDER BY entrypoint DESC, execute_after DESC, id DESC
    -- deferred]
    -- [held
    id
FROM <rows>
ORDER BY id DESC
    -- held]
