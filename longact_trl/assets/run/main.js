// The page.

const names = data.runs.map((run) => run.name);
document.title = element("title").textContent = names.join(" · ");
const latest = data.runs.map((run) => Object.values(run.log).flat().reduce((most, p) => Math.max(most, p[0]), 0));
element("subtitle").textContent = data.runs.map((run, i) => `${run.name}: ${count(latest[i], "step")}`).join("; ");
if (names.length > 1) names.forEach((name, i) => {
  const entry = make("span"), mark = make("i"); mark.style.background = colour(i);
  entry.append(mark, name); element("legend").append(entry);
});
element("curves").append(...data.curves.map(([name, title]) => curve(name, title)).filter(Boolean));
element("parts").append(...data.runs.map(breakdown).filter(Boolean));

// Configuration: what tells runs apart first, the rest when it is opened.

const TITLES = {run: "Run", settings: "All settings", model: "Model", versions: "Versions", machine: "Machine"};
const differs = (title, key) => new Set(data.runs.map((run) => run.configuration[title]?.[key])).size > 1;

function showSettings() {
  const only = element("differ").checked;
  element("settings").replaceChildren(...Object.entries(TITLES).map(([title, shown]) => {
    let keys = [...new Set(data.runs.flatMap((run) => Object.keys(run.configuration[title] ?? {})))];
    if (only) keys = keys.filter((key) => differs(title, key));
    if (!keys.length) return null;
    const table = make("table"), part = make("details"), wide = make("div", "", "wide");
    if (names.length > 1) { const head = make("tr"); head.append(make("th"), ...names.map((name) => make("th", name)));
      table.append(head); }
    for (const key of keys) {
      const row = make("tr", "", names.length > 1 && differs(title, key) ? "differs" : "");
      row.append(make("td", key, "muted"));
      row.append(...data.runs.map((run) => make("td", run.configuration[title]?.[key] ?? "–")));
      table.append(row);
    }
    wide.append(table); part.append(make("summary", `${shown} (${keys.length})`), wide);
    part.open = only || ["run", "versions", "machine"].includes(title);
    return part;
  }).filter(Boolean));
}

// Controls and keys.

for (const id of ["run", "maskRun"]) {
  names.forEach((name, i) => element(id).append(new Option(name, i)));
  element(id).parentElement.hidden = names.length < 2;
}
element("differLabel").hidden = names.length < 2;
element("differ").onchange = showSettings;
element("run").onchange = (event) => { state.run = Number(event.target.value); state.step = 0; showRollouts(); };
element("step").oninput = (event) => { state.step = Number(event.target.value); showRollouts(); };
element("filter").onchange = showRollouts;
element("more").onclick = () => { const next = state.drawn; drawMore(); goTo(next); };
element("maskRun").onchange = showMasks;
element("checkpoint").oninput = showMasks;
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = {ArrowLeft: -1, ArrowRight: 1}[event.key], jump = {j: 1, k: -1}[event.key];
  if (move) { state.step = Math.min(steps().length - 1, Math.max(0, state.step + move)); showRollouts(); }
  if (jump) goTo(state.group + jump);
  const prompt = event.key === "p" && element("groups").children[state.group]?.querySelector("details");
  if (prompt) prompt.open = !prompt.open;
  if (move || jump || prompt) event.preventDefault();
});

const filled = {curves: true, partSection: element("parts").children.length,
  rolloutSection: data.runs.some((run) => Object.keys(run.rollouts).length),
  maskSection: data.runs.some((run) => run.masks.length), settingSection: true};
for (const [id, is] of Object.entries(filled)) {
  element(id).hidden = !is;
  const title = element(id).querySelector("h2")?.textContent ?? "Curves";
  if (is) { const link = make("a", title); link.href = `#${id}`; element("contents").append(link); }
}
if (!data.runs.some((run) => Object.values(run.rollouts).some(([, thrown]) => thrown)))
  element("filter").querySelector("[value=thrown]").remove();
showRollouts(); showMasks(); showSettings();
new IntersectionObserver(([end]) => { if (end.isIntersecting && state.drawn && !element("more").hidden) drawMore(); },
  {rootMargin: "400px"}).observe(element("more"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMasks);
