// A few lines over time, each against the same axis from 0.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, TOP] = [300, 80, 14];

/** `points`: `[seconds, [value, ...]]`, oldest first; a value that isn't a number leaves a gap. */
export function plot(svg, points, text) {
  const values = points.flatMap(([, row]) => row).filter(Number.isFinite);
  const highest = Math.max(...values, Number.MIN_VALUE);
  const [first, last] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 1];
  const x = (at) => ((at - first) / Math.max(1, last - first)) * WIDTH;
  const y = (value) => HEIGHT - (value / highest) * (HEIGHT - TOP);
  const rows = points[0]?.[1].length ?? 0;
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT + 1}`); // a line at 0 is seen too
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `at most ${text(values.length ? highest : NaN)}`);
  svg.replaceChildren(label(text(values.length ? highest : NaN)), ...Array.from({ length: rows }, (_, row) => curve(points, row, x, y)));
}

function curve(points, row, x, y) {
  let pen = "M";
  const steps = [];
  for (const [at, values] of points) {
    if (Number.isFinite(values[row])) {
      steps.push(`${pen}${x(at).toFixed(1)} ${y(values[row]).toFixed(1)}`);
      pen = "L";
    } else pen = "M";
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", steps.join(" ") || "M0 0");
  path.setAttribute("class", `curve-${row}`);
  return path;
}

function label(text) {
  const element = document.createElementNS(SVG, "text");
  element.setAttribute("x", "0");
  element.setAttribute("y", "9");
  element.append(text);
  return element;
}
