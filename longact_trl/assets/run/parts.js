// Seconds of each part of a step, stacked over steps; their means and memory in a table.

const PART_NAMES = {generate: "generation", reward: "rewards", score: "log-probs of rollouts", train: "forward and backward",
  optimizer: "optimizer", rest: "everything else"};

function slowest(run) { // step of a run, in seconds: all runs have one scale
  const totals = {};
  for (const part of data.parts) for (const [step, seconds] of run.seconds[part]) totals[step] = (totals[step] ?? 0) + seconds;
  return Object.values(totals).reduce((a, b) => Math.max(a, b), 0);
}

function breakdown(run) {
  const parts = data.parts.filter((part) => run.seconds[part].some(([, seconds]) => seconds > 0));
  if (!parts.length) return null;
  const steps = run.seconds[parts[0]].map(([step]) => step), [W, H, left, top, bottom] = [420, 150, 54, 10, 18];
  const value = (part, i) => run.seconds[part][i]?.[1] ?? 0;
  const totals = steps.map((_, i) => parts.reduce((sum, part) => sum + value(part, i), 0));
  const most = data.runs.reduce((found, other) => Math.max(found, slowest(other)), 0), first = steps[0], last = steps[steps.length - 1];
  const x = (i) => left + (W - left - 6) * (last > first ? (steps[i] - first) / (last - first) : .5);
  const y = (seconds) => H - bottom - (H - top - bottom) * seconds / most;
  const [svg, draw] = drawing(W, H, `Seconds a step of ${run.name}, by part`);
  for (const seconds of [0, most]) {
    draw("line", {x1: left, x2: W - 6, y1: y(seconds), y2: y(seconds), stroke: "var(--line)"});
    draw("text", {x: left - 4, y: y(seconds) + 3, "text-anchor": "end"}, `${number(seconds)} s`);
  }
  draw("text", {x: left, y: H - 3}, first);
  if (last > first) draw("text", {x: W - 6, y: H - 3, "text-anchor": "end"}, last);
  let below = steps.map(() => 0);
  for (const part of parts) {
    const above = below.map((seconds, i) => seconds + value(part, i));
    const shade = `var(--part${data.parts.indexOf(part)})`;
    if (steps.length === 1) draw("rect", {x: left + 20, width: W - left - 46, y: y(above[0]),
      height: y(below[0]) - y(above[0]), fill: shade});
    else draw("polygon", {fill: shade, points: [...above.map((s, i) => `${x(i)},${y(s)}`),
      ...below.map((s, i) => `${x(i)},${y(s)}`).reverse()].join(" ")});
    below = above;
  }
  const table = make("table"), head = make("tr"), whole = mean(totals);
  head.append(...["", "s a step", "share", "GiB"].map((title) => make("th", title)));
  table.append(head);
  for (const part of parts) {
    const row = make("tr"), name = make("td"), mark = make("i"), seconds = mean(run.seconds[part].map((p) => p[1]));
    mark.style.background = `var(--part${data.parts.indexOf(part)})`;
    name.append(mark, PART_NAMES[part] ?? part);
    const gib = (run.gib[part] ?? []).map((p) => p[1]);
    row.append(name, make("td", number(seconds)), make("td", `${Math.round(100 * seconds / whole)} %`),
      make("td", gib.length ? gib.reduce((a, b) => Math.max(a, b)).toFixed(2) : "–"));
    table.append(row);
  }
  const figure = make("figure");
  figure.append(make("figcaption", data.runs.length > 1 ? run.name : "Seconds a step"), svg, table);
  return figure;
}
