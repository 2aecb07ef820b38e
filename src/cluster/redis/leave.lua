-- KEYS nodes leases tombs graves; ARGV me, whether records may be left (1 or 0)
redis.call('SETBIT', KEYS[3], ARGV[1], 1)
if ARGV[2] == '1' then
    redis.call('HSETNX', KEYS[4], ARGV[1], whole(now()))
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
