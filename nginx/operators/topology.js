// The picture: a box for each part, with lines between those that talk.

import { connect } from "./edges.js";
import { bytes, count, perSecond, seconds, share } from "./format.js";
import { tooHigh } from "./limits.js";

const WELL = new Set(["up"]);

export function draw(section, picture, nginx) {
  tier(section, "way-in", [nginxBox(nginx, picture.figures)]);
  tier(section, "instances", picture.instances.map(instanceBox));
  tier(section, "data", [redisBox(picture.redis), ...picture.servers.map(serverBox)]);
  const replicas = picture.servers.filter(({ role }) => role === "replica").map(({ name, state }) => [name, WELL.has(state)]);
  connect(section, calls(picture, nginx), replicas);
}

function tier(section, name, boxes) {
  section.querySelector(`[data-tier="${name}"]`).replaceChildren(...boxes);
}

/** What it is asked and does not pass on it answers itself: most often that there were too many. */
function nginxBox({ state, connections, rate }, figures) {
  return box("nginx", state, [
    ["connections", count(connections)],
    ["requests", perSecond(rate)],
    ["passed on", perSecond(figures.rate)],
  ]);
}

function instanceBox({ name, state, rate, p95, errors, total, pool, admission }) {
  return box(name, state, [
    ["requests", perSecond(rate), { rate }],
    ["p95", seconds(p95), { p95 }],
    ["5xx", share(errors), { errors }],
    ["in flight", admission?.limit ? `${count(admission.in_flight)} of ${count(admission.limit)}` : "–"],
    ...poolRows(pool),
    ["in all", count(total), { total }],
  ]);
}

function redisBox({ state, hits, round_trip_ms, breakers, rate }) {
  return box("redis", state, [
    ["pipelines", perSecond(rate)],
    ["hits there", share(hits), { hits }],
    ["round trip", seconds(round_trip_ms / 1_000)],
    ["breakers", `${count(breakers)} open`, { breakers }],
  ]);
}

function serverBox({ name, role, state, lag_seconds, lag_bytes, pool, rate }) {
  const lag = role === "replica" ? [["lag", `${seconds(lag_seconds)}, ${bytes(lag_bytes)}`, { lag: lag_seconds }]] : [];
  return box(name, state, [["queries", perSecond(rate)], ...lag, ...poolRows(pool)]);
}

/** Connections: those in use, of how many there may be; and those that are open. */
function poolRows(pool) {
  if (!pool) return [["pool", "–"]];
  const { in_use, open, limit } = pool;
  return [
    ["pool", `${count(in_use)} of ${count(limit)}`, { in_use, use: in_use / limit }],
    ["pool open", count(open), { open }],
  ];
}

function box(name, state, rows) {
  const article = document.createElement("article");
  article.dataset.node = name;
  article.dataset.state = state;
  article.dataset.well = WELL.has(state);
  const title = document.createElement("h2");
  title.append(name);
  const badge = document.createElement("span");
  badge.className = "state";
  badge.append(state);
  title.append(badge);
  article.append(title, list(rows));
  return article;
}

/** The exact number stays with the one that is shown, for whoever reads the page by a program. */
function list(rows) {
  const dl = document.createElement("dl");
  for (const [label, text, exact = {}] of rows) {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.append(label);
    dd.append(text);
    for (const [key, value] of Object.entries(exact)) dd.dataset[key] = value;
    if (Object.entries(exact).some(([key, value]) => tooHigh(key, value))) dd.dataset.mood = "bad";
    dl.append(dt, dd);
  }
  return dl;
}

function calls(picture, nginx) {
  const down = new Set(picture.instances.filter(({ state }) => state === "down").map(({ name }) => name));
  const states = new Map([["redis", picture.redis.state], ...picture.servers.map(({ name, state }) => [name, state])]);
  const toInstances = picture.instances.map(({ name, rate }) => ["nginx", name, rate, nginx.state === "up" && !down.has(name)]);
  const toData = picture.instances.flatMap(({ name, calls }) =>
    [...states].map(([server, state]) => {
      const rate = (calls.get(server) ?? 0) + (server === "primary" ? (calls.get("primary-read") ?? 0) : 0);
      return [name, server, rate, WELL.has(state) && !down.has(name)];
    }),
  );
  return [...toInstances, ...toData];
}
