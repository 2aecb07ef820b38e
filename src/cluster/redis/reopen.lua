-- KEYS graves; ARGV whose
return redis.call('HSETNX', KEYS[1], ARGV[1], whole(now()))
