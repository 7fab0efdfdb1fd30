// Rollouts by step and group. Groups are drawn as they are scrolled to, long texts are cut until somebody asks.

const AT_ONCE = 8, LONG = 4000;
const state = {run: 0, step: 0, group: -1, shown: [], drawn: 0};
const steps = () => Object.keys(data.runs[state.run].rollouts).map(Number);

async function showRollouts() {
  const all = steps();
  element("step").max = Math.max(0, all.length - 1); element("step").value = state.step;
  const step = all[state.step];
  element("stepName").textContent = step === undefined ? "" : `${step} of ${all[all.length - 1]}`;
  element("step").setAttribute("aria-valuetext", `step ${step}`);
  if (step === undefined) { drawGroups([], "This run wrote no rollouts."); return; }
  const asked = `${state.run}-${step}`;
  const content = await unpack(`rollouts-${asked}`);
  if (asked !== `${state.run}-${steps()[state.step]}`) return; // somebody has gone on
  const numbered = content.groups.map((group, i) => ({...group, title: `Group ${i + 1}`, flat: !group.rows.some((row) => row.advantage)}));
  const thrown = content.thrown.map((group, i) => ({...group, title: `Thrown away ${i + 1}`, flat: true}));
  const wanted = {all: [...numbered, ...thrown], mixed: numbered.filter((g) => !g.flat), flat: numbered.filter((g) => g.flat),
    thrown}[element("filter").value];
  const flat = numbered.filter((g) => g.flat).length;
  drawGroups(wanted, `${count(numbered.length, "group")} trained on, ${flat} of them without an advantage` +
    (thrown.length ? `; ${count(thrown.length, "group")} thrown away by dynamic sampling.` : "."));
}

function drawGroups(groups, note) {
  Object.assign(state, {shown: groups, drawn: 0, group: -1});
  element("groups").replaceChildren();
  element("groupNote").textContent = groups.length || !note.endsWith(".") ? note : `${note} None to show.`;
  drawMore();
}

function drawMore() {
  const next = state.shown.slice(state.drawn, state.drawn + AT_ONCE);
  element("groups").append(...next.map(groupOf));
  state.drawn += next.length;
  const left = state.shown.length - state.drawn;
  element("more").hidden = !left;
  element("more").textContent = `Show ${count(Math.min(left, AT_ONCE), "more group")} (${left} left)`;
}

function textOf(text) { // long texts are cut until somebody asks
  const shown = make("pre", text.length > LONG ? `${text.slice(0, LONG)} …` : text);
  if (text.length <= LONG) return [shown];
  const whole = make("button", `All ${text.length.toLocaleString("en")} characters`, "small");
  whole.onclick = () => { shown.textContent = text; whole.remove(); };
  return [shown, whole];
}

function groupOf(group) {
  const card = make("article", "", group.reason ? "group flat thrown" : group.flat ? "group flat" : "group");
  card.tabIndex = -1;
  const prompt = make("details"), rewards = {};
  for (const row of group.rows) for (const [name, value] of Object.entries(row.rewards)) (rewards[name] ??= []).push(value);
  const means = Object.entries(rewards).map(([name, values]) => `${name} ${number(mean(values))}`);
  prompt.append(make("summary", `${group.title}: ${[count(group.rows.length, "completion"), ...means].join(", ")}`));
  prompt.ontoggle = () => { if (prompt.open && prompt.children.length === 1) prompt.append(...textOf(group.prompt)); };
  card.append(prompt);
  if (group.gold) card.append(make("div", `gold: ${group.gold.join(" | ")}${group.kind ? ` (${group.kind})` : ""}`, "small gold"));
  if (group.reason) card.append(make("div", `Not trained on: ${group.reason}.`, "small muted"));
  else if (group.flat) card.append(make("div", "All completions earn the same, so none has an advantage: nothing is learned here.",
    "small muted"));
  for (const row of group.rows) {
    const line = make("div", "", "row"), tags = make("div", "", "tags");
    for (const [name, value] of Object.entries(row.rewards))
      tags.append(make("span", `${name} ${number(value)}`, value > 0 ? "good" : "bad"));
    if (row.advantage !== null) tags.append(make("span", `advantage ${number(row.advantage)}`, "muted"));
    for (const why of row.why) tags.append(make("span", why, "bad why"));
    line.append(tags, ...textOf(row.completion));
    card.append(line);
  }
  return card;
}

function goTo(group) {
  while (group >= state.drawn && state.drawn < state.shown.length) drawMore();
  const cards = element("groups").children;
  if (!cards.length) return;
  state.group = Math.min(cards.length - 1, Math.max(0, group));
  cards[state.group].focus({preventScroll: true});
  cards[state.group].scrollIntoView({block: "start"});
}
