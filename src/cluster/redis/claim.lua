-- KEYS record claim; ARGV id, claimant, lapse
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then
    return {'missing'}
end
local claimant = redis.call('GET', KEYS[2])
if claimant and claimant ~= ARGV[2] then
    return {'taken'}
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return {'yours', record}
