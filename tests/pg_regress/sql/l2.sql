-- Which classes are in Redis, and how.
SELECT state_class_define('shared', l2_ttl => '15 minutes'), state_class_define('other', l2_codec => 'gzip');
SELECT class, ttl, codec, above, channel, refused FROM state_l2_classes;
SELECT state_class_define('shared', l2_codec => 'plain', l2_above => 0);
BEGIN;
-- Of a class that comes with the extension there may be two rows.
SELECT state_class_define('config', l2_ttl => '30 minutes');
SELECT class, ttl, codec, above, channel, refused FROM state_l2_classes;
SELECT state_class_define('config', l2_ttl => '0');
SELECT class, ttl, codec, above, channel, refused FROM state_l2_classes;
ROLLBACK;

-- What cannot be.
SELECT complaint($$SELECT state_class_define('shared', l2_ttl => '-1 s')$$);
SELECT complaint($$SELECT state_class_define('shared', l2_ttl => '10 ms')$$);
SELECT complaint($$SELECT state_class_define('shared', l2_ttl => '200 years')$$);
SELECT complaint($$SELECT state_class_define('shared', l2_codec => 'lz4')$$);
SELECT complaint($$SELECT state_class_define('shared', l2_above => -1)$$);
SELECT complaint($$UPDATE state_class SET l2_codec = 'lz4' WHERE class = 'shared'$$);

-- Nobody would hear of changes; documents have no versions.
SELECT complaint($$SELECT state_class_define('shared', notify => 'off')$$);
SELECT complaint($$SELECT state_class_define('computed', cache_ttl => '1 s', l2_ttl => '1 h',
	source => 'SELECT to_jsonb($1)')$$);
SELECT class, refused FROM state_l2_classes;
-- By hand it can be written, and is refused by whoever reads the view.
UPDATE state_class SET notify = 'off' WHERE class = 'shared';
SELECT class, refused FROM state_l2_classes;
UPDATE state_class SET notify = 'default' WHERE class = 'shared';

-- Redis knows no policies.
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
SELECT complaint($$SELECT state_class_define('other', l2_ttl => '1 h')$$);
SELECT complaint($$SELECT state_class_define('other', l2_ttl => '0')$$);
SELECT class, refused FROM state_l2_classes;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;

-- Who may read the view needs no table.
CREATE ROLE l2_reader;
GRANT SELECT ON state_l2_classes TO l2_reader;
SET ROLE l2_reader;
SELECT class, ttl FROM state_l2_classes;
RESET ROLE;
REVOKE SELECT ON state_l2_classes FROM l2_reader;
DROP ROLE l2_reader;
DELETE FROM state_class WHERE class IN ('shared', 'other');
