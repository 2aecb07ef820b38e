-- KEYS dataset nodes leases tombs graves; ARGV dataset, whom, lease token seen
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 'changed'
end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then
    return 'unlisted'
end
local time = now()
local lease = redis.call('HGET', KEYS[3], ARGV[2]) or '0:0'
local expiry, token = string.match(lease, '^(%d+):(%d+)$')
if not expiry then
    return foreign(3, lease)
end
if token ~= ARGV[3] or tonumber(expiry) > time then
    return 'renewed'
end
redis.call('SETBIT', KEYS[4], ARGV[2], 1)
redis.call('HSETNX', KEYS[5], ARGV[2], whole(time))
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return 'buried'
