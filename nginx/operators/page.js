import { plot } from "./chart.js";
import * as fleet from "./fleet.js";
import { count, perSecond, seconds, share } from "./format.js";
import { History, rate } from "./history.js";
import { tooHigh } from "./limits.js";
import { picture } from "./model.js";
import { draw } from "./topology.js";

const EVERY_MS = 2_000;
const COURSE_WINDOW = 10; // seconds that a point of a chart looks back
const COURSE_POINTS = 450;
const FIGURES = { rate: perSecond, errors: share, p50: seconds, p95: seconds, p99: seconds, hits: share, limited: perSecond, total: count };

const histories = new Map();
const course = [];
const nginxHistory = new History();
let latest = null;

const element = (id) => document.getElementById(id);
const chosenWindow = () => Number(element("window").value);

async function look() {
  const at = performance.now() / 1_000;
  try {
    const names = await fleet.instances();
    const [nginx, ...told] = await Promise.all([fleet.nginx(), ...names.map(fleet.instance)]);
    for (const { name, metrics } of told) {
      if (!histories.has(name)) histories.set(name, new History());
      if (metrics !== null) histories.get(name).add(at, metrics);
    }
    nginxHistory.add(at, nginx.metrics);
    latest = { told, connections: nginx.connections };
    remember(at, told);
    show();
    document.body.dataset.looks = Number(document.body.dataset.looks ?? 0) + 1;
  } catch (error) {
    say(`nginx does not answer since ${new Date().toLocaleTimeString()}: what is shown is what it was`, "bad");
  }
}

function remember(at, told) {
  const { figures } = picture(told, histories, COURSE_WINDOW);
  course.push([at, figures]);
  if (course.length > COURSE_POINTS) course.shift();
}

function show() {
  if (latest === null) return;
  const shown = picture(latest.told, histories, chosenWindow());
  for (const [name, write] of Object.entries(FIGURES)) {
    const dd = document.querySelector(`[data-figure="${name}"]`);
    dd.textContent = write(shown.figures[name]);
    dd.dataset.value = shown.figures[name];
    dd.dataset.mood = tooHigh(name, shown.figures[name]) ? "bad" : "";
  }
  const nginxRate = rate([nginxHistory], chosenWindow(), "nginx_http_requests_total");
  draw(element("topology"), shown, { state: "up", connections: latest.connections, rate: nginxRate });
  element("routes").replaceChildren(...shown.routes.map(row));
  charts();
  const bad = [...shown.instances, shown.redis, ...shown.servers].filter(({ state }) => state !== "up");
  const told = bad.map(({ name, state }) => `${name} is ${state}`).join(", ");
  say(bad.length ? told : "All parts are up", bad.length ? "bad" : "good");
}

function charts() {
  const points = (...names) => course.map(([at, figures]) => [at, names.map((name) => figures[name])]);
  const chart = (name) => document.querySelector(`[data-chart="${name}"]`);
  const known = course.at(-1)[0] - course[0][0];
  element("course").textContent = known < 60 ? `${Math.round(known)} s` : `${Math.round(known / 60)} min`;
  plot(chart("rate"), points("rate"), perSecond);
  plot(chart("latency"), points("p50", "p95", "p99"), seconds);
  plot(chart("errors"), points("errors"), share);
}

function row({ handler, rate, p95, errors }) {
  const tr = document.createElement("tr");
  tr.dataset.mood = tooHigh("p95", p95) || tooHigh("errors", errors) ? "bad" : "";
  tr.insertCell().append(...handler.split(/(?<=\/)/).flatMap((part) => [document.createElement("wbr"), part]));
  for (const text of [perSecond(rate), seconds(p95), share(errors)]) tr.insertCell().append(text);
  return tr;
}

function say(text, mood) {
  const summary = element("summary");
  if (summary.textContent !== text) summary.textContent = text;
  summary.dataset.mood = mood;
}

async function keepLooking() {
  for (;;) {
    await look();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

element("window").addEventListener("change", show);
new ResizeObserver(show).observe(element("topology"));
keepLooking();
