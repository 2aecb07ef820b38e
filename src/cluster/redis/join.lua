-- KEYS schema dataset beat next nodes leases tombs; ARGV schema, dataset, start, node, lease
local schema = redis.call('GET', KEYS[1])
if schema and schema ~= ARGV[1] then
    return redis.error_reply('SCHEMA ' .. string.sub(schema, 1, 64))
end
local next = redis.call('GET', KEYS[4])
if next and not is_number(next) then
    return foreign(4, next)
end
local incarnation = next and tonumber(next) or tonumber(ARGV[3])
local free = false
for _ = 1, 100000 do
    incarnation = (incarnation + 1) % 16777216
    if redis.call('GETBIT', KEYS[7], incarnation) == 0 and redis.call('HEXISTS', KEYS[5], incarnation) == 0 then
        free = true
        break
    end
end
if not free then
    -- The next attempt goes on from here.
    redis.call('SET', KEYS[4], whole(incarnation))
    return redis.error_reply('BUSY all of 100000 incarnations in a row are taken')
end
local beat, found = count_beat(KEYS[3])
if not beat then
    return foreign(3, found)
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SETNX', KEYS[2], ARGV[2])
redis.call('SET', KEYS[4], whole(incarnation))
redis.call('HSET', KEYS[5], whole(incarnation), ARGV[4])
redis.call('HSET', KEYS[6], whole(incarnation), whole(now() + ARGV[5]) .. ':' .. beat)
return whole(incarnation)
