-- All that the extension has in the catalogs: object, property, value. Whatever a row of a catalog says is compared,
-- but for object identifiers, which are replaced by names, and what the server counts or measures by itself.
WITH ext AS (SELECT * FROM pg_extension WHERE extname = 'state_cache'),
member AS (SELECT classid, objid FROM pg_depend, ext
	WHERE refclassid = 'pg_extension'::regclass AND refobjid = ext.oid AND deptype = 'e'),
relation AS (SELECT c.* FROM member JOIN pg_class c ON classid = 'pg_class'::regclass AND objid = c.oid),
-- What belongs to members: columns, constraints, indexes, triggers, rules, policies, defaults.
part AS (
	SELECT classid, objid FROM member
	UNION SELECT 'pg_class'::regclass, indexrelid FROM pg_index JOIN relation ON indrelid = relation.oid
	UNION SELECT 'pg_constraint'::regclass, x.oid FROM pg_constraint x JOIN relation ON conrelid = relation.oid
	UNION SELECT 'pg_trigger'::regclass, x.oid FROM pg_trigger x JOIN relation ON tgrelid = relation.oid
	UNION SELECT 'pg_rewrite'::regclass, x.oid FROM pg_rewrite x JOIN relation ON ev_class = relation.oid
	UNION SELECT 'pg_policy'::regclass, x.oid FROM pg_policy x JOIN relation ON polrelid = relation.oid
	UNION SELECT 'pg_attrdef'::regclass, x.oid FROM pg_attrdef x JOIN relation ON adrelid = relation.oid),
named AS (SELECT classid, objid, pg_describe_object(classid, objid, 0) AS name FROM part),
acl AS (
	SELECT 'pg_proc'::regclass AS classid, p.oid AS objid, 0 AS sub, coalesce(proacl, acldefault('f', proowner)) AS acl
		FROM pg_proc p
	UNION ALL SELECT 'pg_class'::regclass, c.oid, 0, coalesce(relacl,
			acldefault(CASE WHEN relkind = 'S' THEN 's' ELSE 'r' END::"char", relowner)) FROM pg_class c
	UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, attacl FROM pg_attribute
	UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, coalesce(typacl, acldefault('T', typowner)) FROM pg_type t)

SELECT name, 'is a member', pg_describe_object('pg_extension'::regclass, ext.oid, 0) FROM ext, member
	JOIN named USING (classid, objid)

UNION ALL SELECT 'extension', key, value FROM ext, jsonb_each_text(to_jsonb(ext)
	- '{oid,extowner,extnamespace,extconfig,extcondition,extversion}'::text[])
UNION ALL SELECT 'extension', 'schema and owner', concat(extnamespace::regnamespace, ' ', extowner::regrole) FROM ext
UNION ALL SELECT 'extension', concat('dumps ', extconfig[n]::regclass), extcondition[n]
	FROM ext, generate_subscripts(extconfig, 1) n

UNION ALL SELECT name, 'comment', description FROM named JOIN pg_description d
	ON d.objoid = objid AND d.classoid = classid AND objsubid = 0
UNION ALL SELECT name, concat('comment on ', attname), description FROM named JOIN pg_description d
	ON d.objoid = objid AND d.classoid = classid JOIN pg_attribute ON attrelid = objid AND attnum = objsubid
	WHERE classid = 'pg_class'::regclass
UNION ALL SELECT 'extension', 'comment', obj_description(oid, 'pg_extension') FROM ext

UNION ALL SELECT name, 'privilege', concat_ws(' ', (SELECT attname FROM pg_attribute WHERE attrelid = objid
		AND attnum = sub AND sub > 0 AND classid = 'pg_class'::regclass), grantee::regrole, privilege_type,
		is_grantable, 'by', grantor::regrole)
	FROM named JOIN acl USING (classid, objid), aclexplode(acl)
UNION ALL SELECT name, 'privilege from the script', concat_ws(' ', i.objsubid, grantee::regrole, privilege_type,
		is_grantable, 'by', grantor::regrole)
	FROM named JOIN pg_init_privs i ON i.classoid = classid AND i.objoid = objid, aclexplode(initprivs)

UNION ALL SELECT name, 'depends', concat(deptype, ' ', pg_describe_object(refclassid, refobjid, refobjsubid))
	FROM named JOIN pg_depend d USING (classid, objid)

UNION ALL SELECT name, key, value FROM named JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid,
	jsonb_each_text(to_jsonb(p) - '{oid,pronamespace,proowner,prolang,provariadic,prorettype,proargtypes,
		proallargtypes,protrftypes,proacl,prosqlbody,proargdefaults}'::text[])
UNION ALL SELECT name, 'definition', pg_get_functiondef(objid) FROM named WHERE classid = 'pg_proc'::regclass

UNION ALL SELECT name, key, value FROM named JOIN pg_class c ON classid = 'pg_class'::regclass AND objid = c.oid,
	jsonb_each_text(to_jsonb(c) - '{oid,relnamespace,reltype,reloftype,relowner,relam,relfilenode,reltablespace,
		relpages,reltuples,relallvisible,relallfrozen,reltoastrelid,relfrozenxid,relminmxid,relrewrite,relpartbound,
		relacl,relnatts}'::text[])
UNION ALL SELECT name, 'owner, method, TOAST', concat_ws(' ', relowner::regrole, amname, reltoastrelid <> 0)
	FROM named JOIN pg_class c ON classid = 'pg_class'::regclass AND objid = c.oid LEFT JOIN pg_am a ON a.oid = relam
UNION ALL SELECT name, 'view', pg_get_viewdef(objid) FROM named JOIN pg_class c ON objid = c.oid
	WHERE classid = 'pg_class'::regclass AND relkind = 'v'
UNION ALL SELECT name, 'sequence', (to_jsonb(s) - 'seqrelid' - 'seqtypid')::text FROM named
	JOIN pg_sequence s ON classid = 'pg_class'::regclass AND objid = seqrelid
UNION ALL SELECT concat(name, ' column ', attname), key, value FROM named
	JOIN pg_attribute a ON classid = 'pg_class'::regclass AND objid = attrelid,
	jsonb_each_text(to_jsonb(a) - '{attrelid,atttypid,attcollation,attnum,attcacheoff,attacl,attmissingval,
		atthasmissing}'::text[]
		-- There are servers that note in the options of each column when they made it.
		|| jsonb_build_object('attoptions', ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\_attver=%'),
			'type', format_type(atttypid, atttypmod), 'collation', attcollation::regcollation,
			'place', (SELECT count(*) FROM pg_attribute o WHERE o.attrelid = a.attrelid AND o.attnum <= a.attnum
				AND o.attnum > 0 AND NOT o.attisdropped)))
	WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT concat(name, ' column ', attname), 'default', pg_get_expr(adbin, adrelid) FROM named
	JOIN pg_attrdef d ON classid = 'pg_class'::regclass AND objid = adrelid
	JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
UNION ALL SELECT name, key, value FROM named JOIN pg_index i ON classid = 'pg_class'::regclass AND objid = indexrelid,
	jsonb_each_text(to_jsonb(i) - '{indexrelid,indrelid,indkey,indcollation,indclass,indoption,indexprs,indpred,
		indcheckxmin}'::text[] || jsonb_build_object('definition', pg_get_indexdef(indexrelid)))
UNION ALL SELECT name, 'definition', concat(pg_get_constraintdef(objid), ' valid: ', convalidated) FROM named
	JOIN pg_constraint c ON classid = 'pg_constraint'::regclass AND objid = c.oid
UNION ALL SELECT name, 'definition', concat(pg_get_triggerdef(objid), ' enabled: ', tgenabled) FROM named
	JOIN pg_trigger t ON classid = 'pg_trigger'::regclass AND objid = t.oid WHERE NOT tgisinternal
UNION ALL SELECT name, 'definition', concat(pg_get_ruledef(objid), ' enabled: ', ev_enabled) FROM named
	JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND objid = r.oid
UNION ALL SELECT name, 'definition', concat_ws(' ', polcmd, polpermissive, polroles::regrole[],
		pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM named
	JOIN pg_policy p ON classid = 'pg_policy'::regclass AND objid = p.oid
UNION ALL SELECT name, key, value FROM named JOIN pg_type t ON classid = 'pg_type'::regclass AND objid = t.oid,
	jsonb_each_text(to_jsonb(t) - '{oid,typnamespace,typowner,typrelid,typelem,typarray,typbasetype,typcollation,
		typacl,typdefaultbin}'::text[])
ORDER BY 1, 2, 3
