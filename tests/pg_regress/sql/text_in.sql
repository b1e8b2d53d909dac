-- JSON as text in: what is stored is what a cast to jsonb would give, and errors are those of the cast.
SELECT state_set_text('t', '{"b": 1.00, "a": [true, null, "x\u0041\n"], "b": 2.50}', class => 'config');
SELECT state_get('t', class => 'config'), state_version('t', class => 'config');
-- The same again, spelled otherwise: a duplicate.
SELECT state_set_text('t', ' {"a":[true,null,"xA\n"],"b":2.50} ', class => 'config');
SELECT state_version('t', class => 'config');
-- Another number: 2.5 is another document than 2.50, as it is for jsonb's bytes.
SELECT state_set_text('t', '{"a":[true,null,"xA\n"],"b":2.5}', class => 'config');
SELECT state_version('t', class => 'config');

-- What jsonb refuses.
SELECT state_set_text('t', '{"a": "x\u0000y"}', class => 'config');
SELECT state_set_text('t', '{"a": "x\ud800y"}', class => 'config');
SELECT state_set_text('t', '{"a": nul}', class => 'config');
SELECT state_set_text('t', '', class => 'config');
SELECT state_set_text('t', NULL, class => 'config');
SELECT state_set_text('t', '{"a": NaN}', class => 'config');
SELECT state_version('t', class => 'config');

-- What language models write is kept.
SELECT state_set_text('t', '{"a": "x\u0000y", "b": "\ud800", "c": "\ud834\udd1e", "\u0000": "\\u0000"}',
	on_invalid => 'replace', class => 'config');
SELECT state_get('t', class => 'config');
-- Only that: the rest is refused where it stands.
SELECT state_set_text('t', '{"a": "\u0000", b}', on_invalid => 'replace', class => 'config');
SELECT state_set_text('t', '{}', on_invalid => 'ignore', class => 'config');
SELECT state_set_text('t', '{}', on_invalid => NULL, class => 'config');

-- All that state_set() does.
SELECT state_set_text('t', '{}', expected_version => 1, class => 'config');
SELECT state_set_text('u', '{"n": 1}', ttl => '1 hour', class => 'config');
SELECT expires_at - updated_at BETWEEN '59 minutes' AND '61 minutes' AS expires FROM state_head WHERE key = 'u';
SELECT state_set_text('u', '{}', class => 'nowhere');

-- Checkpoints.
SELECT * FROM state_save_text('r', '{"step": 1, "text": "\ud83d"}', 'phase_transition', 'data_analysis',
	on_invalid => 'replace', execution_context => '{"by": "test"}');
SELECT version, checkpoint_type, agent_phase, execution_context FROM state_history('r');
SELECT state_get('r');
SELECT * FROM state_save_text('r', '{"step": 1, "text": "\ufffd"}');
SELECT * FROM state_save_text('r', '{"step": 2}', expected_version => 7);
SELECT * FROM state_save_text('r', '{"step": }');
SELECT state_delete('t', class => 'config'), state_delete('u', class => 'config'), state_delete('r');
