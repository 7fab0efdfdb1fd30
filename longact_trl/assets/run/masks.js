// Rows of W_Q and W_K, a line a head: at one checkpoint, or how often over all of them.

let masksOf = {run: -1, projections: []};

const bits = (text, length) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Uint8Array.from({length}, (_, i) => bytes[i >> 3] >> (7 - (i & 7)) & 1);
};

async function showMasks() {
  const run = Number(element("maskRun").value || 0), checkpoints = data.runs[run].masks;
  element("checkpoint").max = checkpoints.length;
  const at = Math.min(Number(element("checkpoint").value), checkpoints.length); // 0 is all of them
  element("checkpointName").textContent = at ? `step ${checkpoints[at - 1]}` : "all";
  element("checkpoint").setAttribute("aria-valuetext", at ? `step ${checkpoints[at - 1]}` : "all checkpoints");
  if (!checkpoints.length) { element("masks").replaceChildren(make("p", "This run has no masks.", "muted")); return; }
  if (masksOf.run !== run) masksOf = {run, projections: await unpack(`masks-${run}`)};
  element("maskNote").textContent = "Rows of W_Q and W_K, a line a head. " + (at ?
    `Dark: selected at step ${checkpoints[at - 1]}.` : checkpoints.length > 1 ?
    `The darker, the more of the ${checkpoints.length} checkpoints (step ${checkpoints[0]} to ${checkpoints[checkpoints.length - 1]}) had the row selected.` :
    `Dark: selected at the one checkpoint, step ${checkpoints[0]}.`);
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => { const probe = make("i"); probe.style.color = style.getPropertyValue(name); document.body.append(probe);
    const found = getComputedStyle(probe).color.match(/\d+/g).map(Number); probe.remove(); return found; };
  const [low, high] = [rgb("--line"), rgb("--run0")];
  element("masks").replaceChildren(...masksOf.projections.map((p) => {
    const shown = at ? [p.masks[at - 1]] : p.masks, counts = new Uint16Array(p.rows), width = p.rows / p.heads;
    for (const mask of shown) bits(mask, p.rows).forEach((bit, i) => { counts[i] += bit; });
    const ever = counts.filter((c) => c).length;
    const figure = make("figure"), canvas = make("canvas");
    canvas.width = width; canvas.height = p.heads; canvas.style.height = `${Math.max(24, 6 * p.heads)}px`;
    const context = canvas.getContext("2d"), image = context.createImageData(width, p.heads);
    counts.forEach((n, i) => { for (let c = 0; c < 3; c++)
      image.data[4 * i + c] = low[c] + (high[c] - low[c]) * n / shown.length; image.data[4 * i + 3] = 255; });
    context.putImageData(image, 0, 0);
    canvas.setAttribute("role", "img");
    const churn = at > 1 ? p.churn[at - 2] : !at && p.churn.length ? mean(p.churn) : null;
    const said = `${ever} of ${p.rows} rows${!at && p.masks.length > 1 ? " at some checkpoint" : ""}` +
      (churn === null ? "" : `, churn ${number(churn)}`);
    canvas.setAttribute("aria-label", `${p.kind} of layer ${p.layer}: ${said}`);
    const caption = make("figcaption", `${p.kind}, layer ${p.layer}`);
    caption.append(make("span", said, "muted"));
    figure.append(caption, canvas);
    return figure;
  }));
}
