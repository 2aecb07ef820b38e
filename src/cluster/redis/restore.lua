-- KEYS beat nodes leases tombs graves; ARGV number of nodes, then for each its incarnation and JSON, then tombstones
local time = now()
local nodes = tonumber(ARGV[1])
for i = 2 + 2 * nodes, #ARGV do
    redis.call('SETBIT', KEYS[4], ARGV[i], 1)
    if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
        -- It came back with old data, and so may its records have.
        redis.call('HDEL', KEYS[3], ARGV[i])
        redis.call('HSETNX', KEYS[5], ARGV[i], whole(time))
    end
end
for i = 2, 2 * nodes, 2 do
    if redis.call('GETBIT', KEYS[4], ARGV[i]) == 0 and redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
        local beat, found = count_beat(KEYS[1])
        if not beat then
            return foreign(1, found)
        end
        redis.call('HSET', KEYS[3], ARGV[i], whole(time) .. ':' .. beat)
    end
end
return 1
