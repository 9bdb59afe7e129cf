// What an instance's counters were, so that their increase over a window is known.

import { numberOf } from "./exposition.js";

const KEPT_SECONDS = 960; // a little more than the longest window
const SLACK_SECONDS = 0.5; // the looks are not quite as regular as the windows
const COUNTERS = new Set([
  "http_requests_total",
  "http_request_duration_seconds_bucket",
  "cache_lookups_total",
  "rate_limit_decisions_total",
  "postgres_queries_total",
  "redis_pipeline_seconds_count",
  "nginx_http_requests_total",
]);

/** One instance's counters over time. */
export class History {
  #series = new Map(); // from a key to its {name, labels}
  #raw = new Map(); // from a key to the counter as it was told last
  #samples = []; // {at, totals}: at in seconds, totals from a key to how far it ever went up; oldest first

  /** A counter that goes down was started anew from 0, as Prometheus' own `increase` takes it. */
  add(at, metrics) {
    const totals = new Map(this.#samples.at(-1)?.totals);
    const raw = new Map();
    for (const name of COUNTERS) {
      for (const { labels, value } of metrics.get(name) ?? []) {
        const key = `${name}${JSON.stringify(labels)}`;
        const before = this.#raw.get(key) ?? 0;
        if (!this.#series.has(key)) this.#series.set(key, { name, labels });
        totals.set(key, (totals.get(key) ?? 0) + (value < before ? value : value - before));
        raw.set(key, value);
      }
    }
    this.#raw = raw;
    this.#samples.push({ at, totals });
    while (this.#samples[0].at < at - KEPT_SECONDS) this.#samples.shift();
  }

  /** How far a counter went up over the window, added up over the series that pass. */
  increase(window, name, passes = () => true) {
    const [first, last] = this.#ends(window);
    if (first === last) return 0;
    let total = 0;
    for (const [key, series] of this.#series) {
      if (series.name === name && passes(series.labels)) total += (last.totals.get(key) ?? 0) - (first.totals.get(key) ?? 0);
    }
    return total;
  }

  /** How much of the window is known. */
  seconds(window) {
    const [first, last] = this.#ends(window);
    return first === last ? 0 : last.at - first.at;
  }

  /** The label sets that a counter has had. */
  labels(name) {
    return [...this.#series.values()].filter((series) => series.name === name).map((series) => series.labels);
  }

  #ends(window) {
    const last = this.#samples.at(-1);
    const since = (last?.at ?? 0) - window - SLACK_SECONDS;
    return [this.#samples.find((sample) => sample.at >= since) ?? last, last];
  }
}

/** Of all instances together: what a counter went up by per second. */
export function rate(histories, window, name, passes) {
  let perSecond = 0;
  for (const history of histories) {
    const seconds = history.seconds(window);
    if (seconds > 0) perSecond += history.increase(window, name, passes) / seconds;
  }
  return perSecond;
}

export function increase(histories, window, name, passes) {
  return histories.reduce((total, history) => total + history.increase(window, name, passes), 0);
}

/** As Prometheus' histogram_quantile: linear inside a bucket. NaN where nothing was observed. */
export function quantile(share, histories, window, name, passes = () => true) {
  const bounds = new Set(histories.flatMap((history) => history.labels(`${name}_bucket`).map((labels) => labels.le)));
  const buckets = [...bounds]
    .map((le) => {
      const inBucket = (labels) => labels.le === le && passes(labels);
      return { bound: numberOf(le), count: increase(histories, window, `${name}_bucket`, inBucket) };
    })
    .sort((one, other) => one.bound - other.bound);
  const wanted = share * (buckets.at(-1)?.count ?? 0);
  if (!wanted) return NaN;
  let lower = { bound: 0, count: 0 };
  for (const bucket of buckets) {
    if (bucket.count >= wanted) {
      if (bucket.bound === Infinity) return lower.bound;
      return lower.bound + ((bucket.bound - lower.bound) * (wanted - lower.count)) / (bucket.count - lower.count);
    }
    lower = bucket;
  }
  return NaN;
}
