-- Whether a large claim would have its turn; see claim.sql. The turn itself is given back at once.
SELECT
-- include lease/parts/turn
AS free
