// The picture: a box for each part, and lines between those that talk.

import { bytes, count, perSecond, seconds, share } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WELL = new Set(["up"]);

export function draw(section, picture, nginx) {
  tier(section, "way-in", [box("nginx", nginx.state, [["connections", count(nginx.connections)], ["requests", perSecond(nginx.rate)]])]);
  tier(section, "instances", picture.instances.map(instanceBox));
  tier(section, "data", [redisBox(picture.redis), ...picture.servers.map(serverBox)]);
  const replicas = picture.servers.filter(({ role }) => role === "replica");
  connect(section, calls(picture, nginx), replicas);
}

function tier(section, name, boxes) {
  section.querySelector(`[data-tier="${name}"]`).replaceChildren(...boxes);
}

function instanceBox({ name, state, rate, p95, errors, total, pool, admission }) {
  return box(name, state, [
    ["requests", perSecond(rate), { rate }],
    ["p95", seconds(p95), { p95 }],
    ["5xx", share(errors), { errors }],
    ["in flight", admission?.limit ? `${count(admission.in_flight)} (${count(admission.limit)})` : "–"],
    ["pool", poolText(pool)],
    ["in all", count(total), { total }],
  ]);
}

function redisBox({ state, hits, round_trip_ms, breakers, rate }) {
  return box("redis", state, [
    ["pipelines", perSecond(rate)],
    ["hits", share(hits), { hits }],
    ["round trip", seconds(round_trip_ms / 1_000)],
    ["breakers open", count(breakers), { breakers }],
  ]);
}

function serverBox({ name, role, state, lag_seconds, lag_bytes, pool, rate }) {
  const lag = role === "replica" ? [["lag", `${seconds(lag_seconds)}, ${bytes(lag_bytes)}`, { lag: lag_seconds }]] : [];
  return box(name, state, [["queries", perSecond(rate)], ...lag, ["pool", poolText(pool), { in_use: pool.in_use, open: pool.open }]]);
}

function poolText(pool) {
  return pool ? `${count(pool.in_use)} of ${count(pool.open)} (${count(pool.limit)})` : "–";
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

function connect(section, edges, replicas) {
  const svg = section.querySelector("#edges");
  const origin = section.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${origin.width} ${origin.height}`);
  const place = (name) => placeOf(section, origin, name);
  svg.replaceChildren(...edges.map((edge) => call(place, edge)), ...replicas.map((replica) => stream(place, replica)));
}

/** Where a box is, measured from the picture's corner. */
function placeOf(section, origin, name) {
  const { left, top, bottom, width } = section.querySelector(`[data-node="${name}"]`).getBoundingClientRect();
  return { x: left + width / 2 - origin.left, top: top - origin.top, bottom: bottom - origin.top };
}

/** The more requests, the thicker. */
function call(place, [from, to, rate, works]) {
  const [above, below] = [place(from), place(to)];
  const bend = (below.top - above.bottom) / 2;
  const kind = works ? (rate > 0 ? "busy" : "idle") : "broken";
  const width = rate > 0 ? Math.min(8, 1.5 + Math.log10(1 + rate) * 1.6) : 1;
  return curve([above.x, above.bottom], [above.x, above.bottom + bend], [below.x, below.top - bend], [below.x, below.top], kind, width);
}

/** The write-ahead log, from the primary to a replica beside it. */
function stream(place, { name, state }) {
  const [from, to] = [place("primary"), place(name)];
  const depth = Math.max(from.bottom, to.bottom) + 26;
  return curve([from.x, from.bottom], [from.x, depth], [to.x, depth], [to.x, to.bottom], WELL.has(state) ? "wal" : "broken", 1.5);
}

function curve(start, first, second, end, kind, width) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M ${start} C ${first} ${second} ${end}`);
  path.setAttribute("class", kind);
  path.setAttribute("stroke-width", width);
  return path;
}
