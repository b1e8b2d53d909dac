//! The scripts, in Redis's Lua. Each touches one key, whose name is `KEYS[1]`.
//!
//! Versions are compared as two numbers of 32 bits: Lua compares strings as the server's locale does, and numbers of
//! 64 bits lose their end.

/// Writes a value or tombstone over an older one, or over what is not ours. A tombstone is newer than a document of
/// the same version, which has expired. `ARGV[1]`: the value; `ARGV[2]`: its TTL
/// in milliseconds. Answers a number, and the header that was there:
///
/// | answer | what happened |
/// | --- | --- |
/// | 1 | written; nothing was there |
/// | 2 | written over an older version, or over a lease |
/// | 3 | written over what was not ours: foreign, of another format, truncated, of another type |
/// | 0 | nothing written, the same is there; it has the new TTL |
/// | -1 | nothing written: the same version with other content |
/// | -2 | nothing written: a newer version |
pub const WRITE: &str = r"
local new, ttl = ARGV[1], ARGV[2]
local old = redis.pcall('GETRANGE', KEYS[1], 0, 31)
local done = 3
if type(old) == 'table' then
  old = ''
elseif old == '' then
  done = redis.call('EXISTS', KEYS[1]) == 0 and 1 or 3
elseif #old == 32 and string.sub(old, 1, 5) == string.sub(new, 1, 5)
  and redis.call('STRLEN', KEYS[1]) == 32 + struct.unpack('>I4', old, 21) then
  local high, low = struct.unpack('>I4I4', old, 9)
  local new_high, new_low = struct.unpack('>I4I4', new, 9)
  if high > new_high or (high == new_high and low > new_low) then
    return {-2, old}
  elseif high == new_high and low == new_low and not
    (string.byte(old, 7) == 0 and string.byte(new, 7) == 1) then
    if old ~= string.sub(new, 1, 32) then
      return {-1, old}
    end
    redis.call('PEXPIRE', KEYS[1], ttl)
    return {0, old}
  end
  done = 2
end
redis.call('SET', KEYS[1], new, 'PX', ttl)
return {done, old}
";

/// Replaces exactly what the caller has seen: a lease by the value it was taken for, or a value that is damaged or
/// comes from a lost future. `ARGV[1]`: the first 32 bytes that must be there (fewer where there are fewer);
/// `ARGV[2]`: how many bytes must be there; `ARGV[3]`: the new value, or nothing to delete; `ARGV[4]`: its TTL in
/// milliseconds. What is there under another type than string is always replaced. Answers 1, or 0 where something
/// else, or nothing, is there.
pub const REPLACE: &str = r"
local old = redis.pcall('GETRANGE', KEYS[1], 0, 31)
if type(old) ~= 'table' and
  (old ~= ARGV[1] or redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[2])
    or redis.call('EXISTS', KEYS[1]) == 0) then
  return 0
end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
";

/// Moves the cursor in the meta hash. `ARGV[1]`: the generation, `ARGV[2]`: the cursor that must be there; `ARGV[3]`:
/// the new cursor. Answers 1, or 0 where another one is there.
pub const MOVE_CURSOR: &str = r"
local old = redis.call('HMGET', KEYS[1], 'generation', 'cursor')
if old[1] ~= ARGV[1] or old[2] ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
return 1
";

/// Writes a field of the meta hash. `ARGV[1]`: the generation that must be there; `ARGV[2]`: the field; `ARGV[3]`:
/// its value. Answers 1, or 0 where another generation is there, of which it would be wrong.
pub const NOTE: &str = r"
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
";

/// Begins a generation. `ARGV[1]`: the generation that must be there, nothing where none may be; the rest: pairs of
/// field and value. Answers 1, or 0 where another generation is there.
pub const BEGIN: &str = r"
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
";
