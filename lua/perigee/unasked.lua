--- Finds Replies that were collected without ever being asked: such a send has sent nothing.
---
--- A proxy with __gc per Reply would cost as much as the rest of it. Instead each gets a slot in a weak table,
--- given back when it is asked; one proxy, renewed at each collection, looks which slots have lost their Reply.

local core = require("perigee.core")
local log = require("perigee.log")
local where = require("perigee.where")

local caller, own, capture = core.caller, where.own, where.capture

local replies = setmetatable({}, { __mode = "v" }) -- slot -> Reply
local funcs, lines = {}, {} -- slot -> where it was made; funcs[slot] is false when free
local free, free_count, slots = {}, 0, 0
local watching = false
local warned = {} -- "file:line" -> true; as many as the scripts have lines

local function give_back(slot)
  funcs[slot] = false
  free_count = free_count + 1
  free[free_count] = slot
end

local function warn(func, line)
  local at = where.text(func, line)
  if warned[at] then return end
  warned[at] = true
  log.warn("the reply made at %s was never asked for, so nothing was sent: await it, or use emit", at)
end

local function sweep()
  for slot = 1, slots do
    local func = funcs[slot]
    if func and replies[slot] == nil then
      give_back(slot)
      warn(func, lines[slot])
    end
  end
end

local function watch()
  watching = true
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    watching = false
    sweep()
    if free_count < slots then watch() end
  end
end

--- Remembers the Reply until `asked`.
local function add(reply)
  local func, line = caller(3) -- the script's, when nothing stands between it and what makes the Reply
  if own[func] ~= false then func, line = capture(4) end -- above: this, reply.new
  if not func then return end
  local slot
  if free_count > 0 then
    slot = free[free_count]
    free_count = free_count - 1
  else
    slots = slots + 1
    slot = slots
  end
  replies[slot], funcs[slot], lines[slot] = reply, func, line
  reply.slot = slot
  if not watching then watch() end
end

local function asked(reply)
  local slot = reply.slot
  reply.slot = nil
  replies[slot] = nil
  give_back(slot)
end

return { add = add, asked = asked }
