PRAGMA journal_mode=DELETE;
PRAGMA synchronous=OFF;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300000)
INSERT INTO t SELECT i, 'row number ' || (i * 7919 % 300007), i / 3.0 FROM n;
COMMIT;
CREATE INDEX tb ON t(b);
SELECT count(*), sum(c) FROM t WHERE b LIKE 'row number 1%';
UPDATE t SET c = c + 1 WHERE a % 3 = 0;
SELECT t1.b, count(*) FROM t t1 JOIN t t2 ON t1.a = t2.a + 1 GROUP BY t1.b % 10 LIMIT 3;
DELETE FROM t WHERE a % 5 = 0;
VACUUM;
SELECT count(*), sum(length(b)) FROM t;
