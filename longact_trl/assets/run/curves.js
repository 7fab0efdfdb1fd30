// Curves of what was logged, runs laid over each other.

function curve(name, title) {
  const series = data.runs.map((run) => run.log[name]);
  const points = series.flat();
  if (!points.length) return null;
  const [W, H, left, top, bottom] = [260, 110, 52, 10, 18];
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const low = (values) => values.reduce((a, b) => Math.min(a, b)), high = (values) => values.reduce((a, b) => Math.max(a, b));
  const [x0, x1, y0, y1] = [low(xs), high(xs), low(ys), high(ys)];
  const x = (v) => left + (W - left - 6) * (x1 > x0 ? (v - x0) / (x1 - x0) : .5);
  const y = (v) => H - bottom - (H - top - bottom) * (y1 > y0 ? (v - y0) / (y1 - y0) : .5);
  const figure = make("figure"), caption = make("figcaption", title);
  caption.append(make("span", series.map((s) => s.length ? number(s[s.length - 1][1]) : "–").join(" / "), "muted"));
  const [svg, draw] = drawing(W, H, `${title}: from ${number(ys[0])} to ${number(ys[ys.length - 1])}`);
  for (const v of y1 > y0 ? [y0, y1] : [y0]) {
    draw("line", {x1: left, x2: W - 6, y1: y(v), y2: y(v), stroke: "var(--line)"});
    draw("text", {x: left - 4, y: y(v) + 3, "text-anchor": "end"}, number(v));
  }
  draw("text", {x: left, y: H - 3}, x0);
  if (x1 > x0) draw("text", {x: W - 6, y: H - 3, "text-anchor": "end"}, x1);
  series.forEach((s, i) => {
    if (s.length === 1) draw("circle", {cx: x(s[0][0]), cy: y(s[0][1]), r: 2.5, fill: colour(i)});
    else if (s.length) draw("polyline", {points: s.map((p) => `${x(p[0])},${y(p[1])}`).join(" "),
      fill: "none", stroke: colour(i), "stroke-width": 1.6, "stroke-linejoin": "round"});
  });
  figure.append(caption, svg);
  return figure;
}
