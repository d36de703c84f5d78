--- Real brokers beside a spec, on free loopback ports. Each has start, stop, kill, restart, pause, resume, port, url.

local life = require("spec.support.broker_life")
local nats = require("spec.support.broker_nats")
local redis = require("spec.support.broker_redis")

return {
  redis = redis.server,
  redis_group = redis.group, -- master, replica, three sentinels
  nats = nats.server,
  nats_cluster = nats.cluster, -- three servers
  stop_all = life.stop_all, -- for teardown
}
