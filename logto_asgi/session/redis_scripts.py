"""What runs inside Redis: each step on one session that must not be torn apart. Knows no connection.

A session is a hash: `v` value, `n` revision, `t` last touched, `x` expires, `e` ends; the times are the app's. Redis 7
refuses a script when its memory is full, unless its first line says otherwise: so reading, touching, deleting and
unlocking go on, and what would add something is refused before it begins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

__all__ = ["FIND", "GET", "LOCK", "NOTE", "PEEK", "SET", "UNLOCK", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script on one key."""

    text: str = field(repr=False)
    digest: str = field(init=False)
    """The name under which Redis has it once it has run."""

    def __post_init__(self) -> None:
        # SHA-1 is the name that Redis gives it, no protection.
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


_WHOLE = """
local function whole(text)
  local number = tonumber(text)
  return number and number >= 0 and number < 1e15 and number % 1 == 0 and number
end
"""
"""A number that nothing goes wrong with. What else is in a field was not written here."""

_READ = f"""{_WHOLE}
local v, n, t, x, e = unpack(redis.call('HMGET', KEYS[1], 'v', 'n', 't', 'x', 'e'))
local now = tonumber(ARGV[1])
if not v then return false end
if not (whole(n) and whole(t) and whole(x) and whole(e)) then return {{}} end
if now >= tonumber(x) then return false end
"""

PEEK = Script(f"#!lua flags=no-writes\n{_READ}return {{v, n, t}}\n")
"""now: read without touching, where nothing may be written."""

GET = Script(f"""#!lua flags=allow-oom
{_READ}
local idle, interval = tonumber(ARGV[2]), tonumber(ARGV[3])
if idle and now - tonumber(t) >= interval then
  local expires = math.min(now + idle, tonumber(e))
  redis.call('HSET', KEYS[1], 't', ARGV[1], 'x', string.format('%d', expires))
  redis.call('EXPIRE', KEYS[1], string.format('%d', expires - now))
end
return {{v, n, t}}
""")
"""now, idle, interval (both "" without a touch): read, and touch where the last time is long enough ago. A list that
is empty stands for fields that no script of ours wrote.

Reading needs the right to write too, so that a replica which lags behind, or was a master, never answers."""

SET = Script(f"""#!lua
{_WHOLE}
local v, n, x = unpack(redis.call('HMGET', KEYS[1], 'v', 'n', 'x'))
local now, expires = tonumber(ARGV[2]), tonumber(ARGV[3])
if v and not (whole(n) and whole(x)) then return false end
if v and now >= tonumber(x) then v = false end
if v == ARGV[1] then return tonumber(n) end
if (v and n or '') ~= ARGV[5] then return false end
n = (v and tonumber(n) or 0) + 1
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'n', n, 't', ARGV[2], 'x', ARGV[3], 'e', ARGV[4])
redis.call('EXPIRE', KEYS[1], string.format('%d', expires - now))
return n
""")
"""value, now, expires, ends, revision ("" to create): create or replace; the same value again is no other."""

LOCK = Script("""#!lua
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return holder == ARGV[1] and 1 or 0
""")
"""token, milliseconds: take a lock that is free, or held by this token, or no lock but garbage of another type."""

UNLOCK = Script("""#!lua flags=allow-oom
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")
"""token: free the lock that it holds."""

_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

NOTE = Script(f"""#!lua
{_CLOCK}
if type(redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)) == 'table' then redis.call('DEL', KEYS[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1e15, '+inf')
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], string.format('%d', last))
return 1
""")
"""key, milliseconds: note a key under a name, forget those that have ended, and the name when the last one has.

What claims to end in 30,000 years was not noted here, and Redis could not count so far."""

FIND = Script(f"""#!lua flags=no-writes
{_CLOCK}
local keys = redis.pcall('ZRANGEBYSCORE', KEYS[1], string.format('(%d', now), '+inf')
if keys.err then return {{}} end
local sound = {{}}
for _, key in ipairs(keys) do
  if #key == 64 and not string.find(key, '[^0-9a-f]') then sound[#sound + 1] = key end
end
return sound
""")
"""Return the keys under a name that have not ended. What is no key was not noted here, and may not even be text."""
