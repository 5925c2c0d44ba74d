-- [some
-- include common/parts/horizon aside=aside entrypoint=entrypoint looks=$5
-- some]
known AS MATERIALIZED (
    SELECT *
    FROM candidate
    -- [some
    WHERE coalesce(turn <= (SELECT turn FROM horizon), true)
    -- some]
),
