// The lines between the boxes.

const SVG = "http://www.w3.org/2000/svg";
const SLACK = 2; // pixels, by which boxes in one row may differ
const ROW_GAP = 20; // pixels between two rows of a tier, as page.css has it

/** `edges`: `[from, to, calls per second, whether both work]`; `replicas`: `[name, whether it works]`. */
export function connect(section, edges, replicas) {
  const svg = section.querySelector("#edges");
  const origin = section.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${origin.width} ${origin.height}`);
  const place = (name) => placeOf(section, origin, name);
  svg.replaceChildren(...edges.map((edge) => call(place, edge)), ...replicas.map((replica) => stream(place, replica)));
}

/** Where a box is, measured from the picture's corner; and the lane beside it, where its tier has several rows. */
function placeOf(section, origin, name) {
  const node = section.querySelector(`[data-node="${name}"]`);
  const [box, tier] = [node.getBoundingClientRect(), node.parentElement.getBoundingClientRect()];
  const gap = parseFloat(getComputedStyle(node.parentElement).columnGap) / 2;
  const x = box.left + box.width / 2 - origin.left;
  return {
    x,
    top: box.top - origin.top,
    bottom: box.bottom - origin.top,
    tierTop: tier.top - origin.top,
    tierBottom: tier.bottom - origin.top,
    lane: x < origin.width / 2 ? box.right - origin.left + gap : box.left - origin.left - gap,
  };
}

/** The more requests, the thicker. Past the other rows of a tier it goes in the lane between its columns. */
function call(place, [from, to, rate, works]) {
  const [above, below] = [place(from), place(to)];
  const points = [[above.x, above.bottom]];
  if (above.tierBottom - above.bottom > SLACK) points.push([above.lane, above.bottom + ROW_GAP], [above.lane, above.tierBottom]);
  if (below.top - below.tierTop > SLACK) points.push([below.lane, below.tierTop], [below.lane, below.top - ROW_GAP]);
  points.push([below.x, below.top]);
  const kind = works ? (rate > 0 ? "busy" : "idle") : "broken";
  return line(points, kind, rate > 0 ? Math.min(8, 1.5 + Math.log10(1 + rate) * 1.6) : 1);
}

/** The write-ahead log, from the primary to a replica: below both where they stand side by side. */
function stream(place, [name, works]) {
  const [from, to] = [place("primary"), place(name)];
  const kind = works ? "wal" : "broken";
  if (to.top > from.bottom) return line([[from.x, from.bottom], [to.x, to.top]], kind, 1.5);
  const depth = Math.max(from.bottom, to.bottom) + 26;
  return path(`M ${from.x} ${from.bottom} C ${from.x} ${depth} ${to.x} ${depth} ${to.x} ${to.bottom}`, kind, 1.5);
}

/** From point to point, leaving and reaching each of them upright. */
function line(points, kind, width) {
  const [[x, y], ...others] = points;
  let [lastX, lastY] = [x, y];
  const steps = others.map(([toX, toY]) => {
    const bend = (toY - lastY) / 2;
    const step = `C ${lastX} ${lastY + bend} ${toX} ${toY - bend} ${toX} ${toY}`;
    [lastX, lastY] = [toX, toY];
    return step;
  });
  return path(`M ${x} ${y} ${steps.join(" ")}`, kind, width);
}

function path(course, kind, width) {
  const element = document.createElementNS(SVG, "path");
  element.setAttribute("d", course);
  element.setAttribute("class", kind);
  element.setAttribute("stroke-width", width);
  return element;
}
