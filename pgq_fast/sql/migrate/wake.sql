-- Have the workers of the layout that has been left look for jobs now, and see that it is gone.
SELECT pg_notify(
    '{channel}',
    json_build_object(
        'channel', '{channel}',
        'operation', 'insert',
        'sent_at', clock_timestamp(),
        'table', '<table>',
        'type', 'table_changed_event'
    )::text
);
