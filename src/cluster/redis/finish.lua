-- KEYS record claim; ARGV id, claimant
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
