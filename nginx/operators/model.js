// From what the instances say to what the page shows: plain values, and no DOM.

import { sum } from "./exposition.js";
import { increase, quantile, rate } from "./history.js";

const REQUESTS = "http_requests_total";
const DURATION = "http_request_duration_seconds";
const failed = ({ status }) => status.startsWith("5");

/** `fleet`: what `instance()` told of each; `histories`: a map from its name to its History. */
export function picture(fleet, histories, window) {
  const all = [...histories.values()];
  return {
    figures: figures(fleet, all, window),
    instances: fleet.map((one) => instanceNode(one, histories.get(one.name), window)),
    redis: redisNode(fleet, all, window),
    servers: servers(fleet, all, window),
    routes: routes(all, window),
  };
}

function figures(fleet, all, window) {
  const requests = increase(all, window, REQUESTS);
  return {
    rate: rate(all, window, REQUESTS),
    errors: requests ? increase(all, window, REQUESTS, failed) / requests : NaN,
    p50: quantile(0.5, all, window, DURATION),
    p95: quantile(0.95, all, window, DURATION),
    p99: quantile(0.99, all, window, DURATION),
    hits: hitRatio(all, window),
    limited: rate(all, window, "rate_limit_decisions_total", ({ outcome }) => outcome === "limited"),
    total: fleet.reduce((total, { metrics }) => total + (metrics ? sum(metrics, REQUESTS) : 0), 0),
  };
}

/** What the first tier misses the next one is asked for, so the last tier's look-ups are those without a hit before. */
function hitRatio(all, window, tiers = ["memory", "redis"]) {
  const hits = increase(all, window, "cache_lookups_total", ({ tier, result }) => tiers.includes(tier) && result === "hit");
  const misses = increase(all, window, "cache_lookups_total", ({ tier, result }) => tier === "redis" && result !== "hit");
  return hits + misses ? hits / (hits + misses) : NaN;
}

function instanceNode({ name, metrics, health }, history, window) {
  const own = [history];
  const state = metrics === null && health === null ? "down" : metrics && sum(metrics, "draining") ? "draining" : "up";
  const requests = increase(own, window, REQUESTS);
  return {
    name,
    state,
    rate: state === "down" ? 0 : rate(own, window, REQUESTS),
    errors: requests ? increase(own, window, REQUESTS, failed) / requests : NaN,
    p95: quantile(0.95, own, window, DURATION),
    total: metrics ? sum(metrics, REQUESTS) : NaN,
    pool: metrics ? pool(metrics, () => true) : null,
    admission: metrics ? { in_flight: sum(metrics, "admission_in_flight"), limit: sum(metrics, "admission_limit") } : null,
    calls: state === "down" ? new Map() : calls(own, window),
  };
}

/** Per second, by where they go. */
function calls(own, window) {
  const servers = new Set(own[0].labels("postgres_queries_total").map(({ server }) => server));
  const perServer = [...servers].map((server) => [server, rate(own, window, "postgres_queries_total", (labels) => labels.server === server)]);
  return new Map([...perServer, ["redis", rate(own, window, "redis_pipeline_seconds_count")]]);
}

function pool(metrics, passes) {
  return {
    in_use: sum(metrics, "postgres_pool_connections_in_use", passes),
    open: sum(metrics, "postgres_pool_connections", passes),
    limit: sum(metrics, "postgres_pool_connections_limit", passes),
  };
}

function redisNode(fleet, all, window) {
  const checks = checksOf(fleet, "redis");
  const open = fleet.reduce((total, { metrics }) => total + (metrics ? sum(metrics, "circuit_breaker_open", isRedis) : 0), 0);
  return {
    name: "redis",
    state: stateOf(checks, ({ status }) => status === "healthy"),
    hits: hitRatio(all, window, ["redis"]),
    round_trip_ms: highest(checks, "round_trip_ms"),
    breakers: open,
    rate: rate(all, window, "redis_pipeline_seconds_count"),
  };
}

const isRedis = ({ dependency }) => dependency === "redis";

/** The primary and the replicas; of what the instances see of one, the worst. */
function servers(fleet, all, window) {
  const names = new Set(fleet.flatMap(({ health }) => Object.entries(health?.checks ?? {}).filter(([, check]) => check.role).map(([name]) => name)));
  return [...names].map((name) => {
    const checks = checksOf(fleet, name);
    const { role, name: server } = checks[0];
    const seen = checks.filter(({ state }) => state !== "down");
    const ofServer = (labels) => labels.server === server || (role === "primary" && labels.server === "primary-read");
    return {
      name: server,
      role,
      state: stateOf(checks, ({ state }) => state === "up" || state === "healthy"),
      lag_seconds: highest(seen, "lag_seconds"),
      lag_bytes: highest(seen, "lag_bytes"),
      pool: totalPool(fleet, ofServer),
      rate: rate(all, window, "postgres_queries_total", ofServer),
    };
  });
}

function totalPool(fleet, passes) {
  const total = { in_use: 0, open: 0, limit: 0 };
  for (const { metrics } of fleet) {
    if (!metrics) continue;
    const own = pool(metrics, passes);
    for (const part of Object.keys(total)) total[part] += own[part];
  }
  return total;
}

function checksOf(fleet, name) {
  return fleet.map(({ health }) => health?.checks[name]).filter((check) => check !== undefined);
}

/** NaN where nobody knows. */
function highest(checks, name) {
  const known = checks.map((check) => check[name]).filter(Number.isFinite);
  return known.length ? Math.max(...known) : NaN;
}

function stateOf(checks, well) {
  if (checks.length === 0) return "unknown";
  const bad = checks.find((check) => !well(check));
  return bad ? (bad.state ?? "down") : "up";
}

function routes(all, window) {
  const handlers = new Set(all.flatMap((history) => history.labels(REQUESTS).map(({ handler }) => handler)));
  const rows = [...handlers].map((handler) => {
    const own = (labels) => labels.handler === handler;
    const requests = increase(all, window, REQUESTS, own);
    return {
      handler,
      rate: rate(all, window, REQUESTS, own),
      errors: requests ? increase(all, window, REQUESTS, (labels) => own(labels) && failed(labels)) / requests : NaN,
      p95: quantile(0.95, all, window, DURATION, own),
    };
  });
  return rows.filter((row) => row.rate > 0).sort((one, other) => other.rate - one.rate).slice(0, 10);
}
