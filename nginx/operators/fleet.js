// Asks every instance by itself: what one says must not be taken for another.

import { parse } from "./exposition.js";

const TIMEOUT_MS = 2_000;

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  return response;
}

/** The names of the instances, as nginx knows them. Raises where nginx itself doesn't answer. */
export async function instances() {
  const response = await ask("/instances");
  if (!response.ok) throw new Error(`/instances: ${response.status}`);
  return response.json();
}

/** `{name, metrics, health}`; both are null of an instance that doesn't answer in time. */
export async function instance(name) {
  const [metrics, health] = await Promise.all([metricsOf(name), healthOf(name)]);
  return { name, metrics, health };
}

/** What nginx counts: connections open, and, named as its exporter does, requests that it was ever asked. */
export async function nginx() {
  const text = await (await ask("/nginx_status")).text();
  const [, active] = /Active connections: (\d+)/.exec(text) ?? [];
  const [, requests] = /^ \d+ \d+ (\d+)/m.exec(text) ?? [];
  return { connections: Number(active), metrics: new Map([["nginx_http_requests_total", [{ labels: {}, value: Number(requests) }]]]) };
}

async function metricsOf(name) {
  try {
    const response = await ask(`/metrics/${name}`);
    return response.ok ? parse(await response.text()) : null;
  } catch {
    return null;
  }
}

/** An unhealthy instance says so with 503, and is heard all the same. */
async function healthOf(name) {
  try {
    const body = await (await ask(`/health/${name}`)).json();
    return body.checks ? body : null;
  } catch {
    return null;
  }
}
