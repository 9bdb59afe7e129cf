// Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)",?/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** A map from each metric's name to its samples, `{labels, value}`. */
export function parse(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (match === null) continue;
    const [, name, labels, value] = match;
    if (!metrics.has(name)) metrics.set(name, []);
    metrics.get(name).push({ labels: labelsOf(labels ?? ""), value: numberOf(value) });
  }
  return metrics;
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) labels[name] = value.replace(/\\[\\n"]/g, (escape) => ESCAPES[escape]);
  return labels;
}

export function numberOf(text) {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}

/** The sum of the samples whose labels pass, 0 where there are none. */
export function sum(metrics, name, passes = () => true) {
  let total = 0;
  for (const { labels, value } of metrics.get(name) ?? []) if (passes(labels)) total += value;
  return total;
}
