-- Stands before every script. KEYS come in the order of the script's first line; none is used that is not declared.
local function foreign(number, found)
    return redis.error_reply('FOREIGN ' .. number .. ' ' .. string.sub(tostring(found), 1, 64))
end
-- Milliseconds by the server's own clock: no node's clock decides about a lease.
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function whole(number)
    return string.format('%.0f', number)
end
local function is_number(text)
    return string.match(text, '^%d+$') ~= nil
end
-- Counts a beat; nil when the key holds something else.
local function count_beat(key)
    local beat = redis.call('GET', key)
    if beat and not is_number(beat) then
        return nil, beat
    end
    return whole(redis.call('INCR', key))
end
