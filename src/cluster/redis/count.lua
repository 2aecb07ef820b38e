-- KEYS counter; ARGV amount, period
local before = redis.call('GET', KEYS[1])
if before and not is_number(before) then
    return foreign(1, before)
end
local after = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(after) == 'table' then
    -- It cannot count any higher, and says so for the rest of its period.
    redis.call('SET', KEYS[1], '9223372036854775807', 'KEEPTTL')
end
if redis.call('PTTL', KEYS[1]) < 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
