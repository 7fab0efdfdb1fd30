// What the sections share.

const element = (id) => document.getElementById(id);
const make = (tag, text = "", classes = "") => {
  const made = document.createElement(tag);
  made.textContent = text; if (classes) made.className = classes;
  return made;
};
const number = (value) => Math.abs(value) >= 1e5 ? value.toExponential(1) :
  Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
const count = (n, one, several = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : several}`;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const colour = (i) => `var(--run${i % 5})`;

async function unpack(id) { // parts are unpacked when somebody looks at them
  const packed = Uint8Array.from(atob(element(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function drawing(width, height, label) { // an SVG, and what adds to it
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`); svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const draw = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    svg.append(made);
  };
  return [svg, draw];
}
