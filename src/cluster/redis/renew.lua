-- KEYS schema dataset beat nodes leases tombs graves; ARGV schema, dataset, me, node, lease
local schema = redis.call('GET', KEYS[1])
if schema and schema ~= ARGV[1] then
    return redis.error_reply('SCHEMA ' .. string.sub(schema, 1, 64))
end
if redis.call('GETBIT', KEYS[6], ARGV[3]) == 1 then
    return false
end
local beat, found = count_beat(KEYS[3])
if not beat then
    return foreign(3, found)
end
if not schema then
    redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('SETNX', KEYS[2], ARGV[2])
local reentered = redis.call('HSETNX', KEYS[4], ARGV[3], ARGV[4])
local time = now()
redis.call('HSET', KEYS[5], ARGV[3], whole(time + ARGV[5]) .. ':' .. beat)
return {
    redis.call('GET', KEYS[2]), beat, reentered, whole(time),
    redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[7]),
}
