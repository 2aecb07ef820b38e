-- KEYS schema dataset beat nodes leases tombs; ARGV schema, dataset, incarnation to begin the search at, node, lease
local schema = redis.call('GET', KEYS[1])
if schema and schema ~= ARGV[1] then
    return redis.error_reply('SCHEMA ' .. string.sub(schema, 1, 64))
end
local incarnation = tonumber(ARGV[3])
local tries = 0
while redis.call('GETBIT', KEYS[6], incarnation) == 1 or redis.call('HEXISTS', KEYS[4], incarnation) == 1 do
    incarnation = (incarnation + 1) % 16777216
    tries = tries + 1
    if tries == 100000 then
        -- The next attempt begins elsewhere.
        return redis.error_reply('BUSY 100000 incarnations in a row are taken')
    end
end
local beat, found = count_beat(KEYS[3])
if not beat then
    return foreign(3, found)
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SETNX', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[4], whole(incarnation), ARGV[4])
redis.call('HSET', KEYS[5], whole(incarnation), whole(now() + ARGV[5]) .. ':' .. beat)
return whole(incarnation)
