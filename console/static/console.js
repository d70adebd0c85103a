// The console's few lines of JavaScript. Every page works without them; they add keys and freshness.
// Log text is only ever moved as nodes the server escaped, or set as textContent; nothing here builds HTML from strings.
"use strict";

const refreshEvery = Number(document.body.dataset.refresh);
const pulseEvery = 5000;
const byId = (id) => document.getElementById(id);
document.documentElement.classList.add("js");

function say(text) {
  const said = byId("said");
  said.textContent = text;
  said.hidden = !text;
}

let sayLater = 0;
function sayForAWhile(text) {
  say(text);
  clearTimeout(sayLater);
  sayLater = setTimeout(() => say(""), 6000);
}

async function fetchPage(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// What was being read stays where it was: rows are found again by the alert's id, not by their place.

const rows = () => [...document.querySelectorAll("tr[data-alert]")];
const rowOf = (id) => rows().find((row) => row.dataset.alert === id);
const currentRow = () => document.activeElement?.closest?.("tr[data-alert]") ?? null;

function goTo(row) {
  if (!row) return;
  row.querySelector("a.open").focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = rows();
  const here = all.indexOf(currentRow());
  goTo(all[here < 0 ? 0 : Math.max(0, Math.min(all.length - 1, here + step))]);
}

async function reloadRows() {
  const page = await fetchPage(location.href);
  const id = currentRow()?.dataset.alert;
  const place = rows().indexOf(currentRow());
  byId("results").replaceWith(page.getElementById("results"));
  for (const count of page.querySelectorAll("[data-count]")) {
    document.querySelector(`[data-count="${count.dataset.count}"]`).textContent = count.textContent;
  }
  byId("fresh").hidden = true;
  if (id) goTo(rowOf(id) ?? rows()[Math.min(place, rows().length - 1)]);
}

async function patchRows() {
  const page = await fetchPage(location.href);
  const focused = currentRow()?.dataset.alert;
  for (const fresh of page.querySelectorAll("tr[data-alert]")) {
    const old = rowOf(fresh.dataset.alert);
    if (old && old.dataset.status !== fresh.dataset.status) old.replaceWith(fresh);
  }
  if (focused && !currentRow()) goTo(rowOf(focused));
}

function offer(count) {
  const button = byId("fresh-load");
  const form = new Intl.PluralRules(document.documentElement.lang).select(count) === "one" ? "one" : "other";
  button.textContent = button.dataset[form].replace("{n}", count.toLocaleString(document.documentElement.lang));
  byId("fresh").hidden = false;
}

function atTop() {
  const here = currentRow();
  const busy = document.querySelector("dialog[open], details[open], tr[data-alert]:hover");
  return window.scrollY < 60 && (!here || here === rows()[0]) && !busy;
}

let lost = false;
async function watch() {
  const results = byId("results");
  try {
    if (!document.hidden) {
      const address = `/api/changes?${results.dataset.asked}&token=${encodeURIComponent(results.dataset.token)}`;
      const answer = await fetch(address);
      if (!answer.ok) throw new Error(String(answer.status));
      if (lost) say("");
      lost = false;
      const change = await answer.json();
      // The answer may be older than rows loaded while it was under way.
      if (change.changed && byId("results") === results) await apply(change, results);
    }
  } catch {
    lost = true;
    say(document.body.dataset.lost);
  }
  setTimeout(watch, refreshEvery);
}

async function apply(change, results) {
  const added = change.ever - Number(results.dataset.ever);
  if ("first" in results.dataset && atTop()) return reloadRows();
  results.dataset.token = change.token;
  if (added > 0) offer(added);
  return patchRows();
}

async function watchPulse() {
  try {
    const strip = byId("pulse");
    if (!document.hidden && !strip.querySelector("details[open]")) {
      const page = await fetchPage("/pulse");
      if (!strip.querySelector("details[open]")) strip.replaceWith(page.getElementById("pulse"));
    }
  } catch {
    // The queue's own watch says that the console does not answer.
  }
  setTimeout(watchPulse, pulseEvery);
}

// Decisions from the queue.

const words = () => byId("words");
const wordFor = (key) => words()?.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? null;
let deciding = null;

async function decide(row, word, note) {
  const answer = await fetch(`/api/alerts/${encodeURIComponent(row.dataset.alert)}/decisions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ status: word.dataset.status, note, expected: row.dataset.status }),
  });
  if (!answer.ok) return (await answer.json()).detail;
  const title = row.querySelector("a.open").textContent;
  await reloadRows();
  sayForAWhile(`${words().dataset.done} ${word.textContent}. ${title}`);
  return null;
}

async function decideAtOnce(row, word) {
  const fault = await decide(row, word, "");
  if (fault) {
    await reloadRows();
    sayForAWhile(`${document.body.dataset.failed} ${fault}`);
  }
}

function ask(row, word) {
  deciding = { id: row.dataset.alert, word };
  byId("decide-title").textContent = word.textContent;
  byId("decide-alert").textContent = row.querySelector("a.open").textContent;
  byId("decide-note").value = "";
  byId("decide-note").required = "note" in word.dataset;
  byId("decide-fault").hidden = true;
  byId("decide").showModal();
  byId("decide-note").focus();
}

async function decideAsAsked(event) {
  event.preventDefault();
  const row = rowOf(deciding.id);
  const note = byId("decide-note").value;
  byId("decide").close();
  if (row) goTo(row);
  const fault = row ? await decide(row, deciding.word, note) : document.body.dataset.failed;
  if (!fault) return;
  // Shown again with the note as it was, and with the row as it is now: who insists, insists knowingly.
  await patchRows();
  byId("decide").showModal();
  byId("decide-fault").textContent = fault;
  byId("decide-fault").hidden = false;
}

// Keys.

function onQueueKey(key) {
  const row = currentRow();
  const word = wordFor(key);
  if (key === "j") move(1);
  else if (key === "k") move(-1);
  else if (word && row) (word.dataset.status === "in_progress" ? decideAtOnce : ask)(row, word);
  else return false;
  return true;
}

function onAlertKey(key) {
  if (key === "u") {
    byId("back").click();
    return true;
  }
  const choice = byId("decision").querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!choice) return false;
  choice.checked = true;
  byId("note").required = "note" in choice.dataset;
  if (choice.value === "in_progress") byId("decision").requestSubmit();
  else byId("note").focus();
  return true;
}

function onKey(event) {
  const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, dialog");
  if (event.key === "Enter" && event.ctrlKey) {
    event.target.closest("form")?.requestSubmit();
    return;
  }
  if (typing || event.ctrlKey || event.altKey || event.metaKey) {
    if (event.key === "Escape" && event.target.id === "q") event.target.blur();
    return;
  }
  let done = true;
  if (event.key === "/" && byId("q")) byId("q").focus();
  else if (event.key === "?" && byId("help")) byId("help").showModal();
  else if (byId("results")) done = onQueueKey(event.key);
  else if (byId("decision")) done = onAlertKey(event.key);
  else done = false;
  if (done) event.preventDefault();
}

// Start.

// The cookie remembers the language from here on; left in the address it would win over a later choice.
const here = new URL(location.href);
if (here.searchParams.has("lang")) {
  here.searchParams.delete("lang");
  history.replaceState(null, "", here);
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.drop[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
  if (event.target.closest("[data-help]")) byId("help").showModal();
});

if (byId("results")) {
  // The filters answer at once; the button is for pages without JavaScript. Fields at their default stay out of the address.
  const filters = byId("filters");
  const picker = filters.querySelector(".picker");
  let picked = false;
  filters.addEventListener("change", (event) => {
    if (picker.contains(event.target)) picked = true; // several may be meant: wait until the list is closed
    else filters.requestSubmit();
  });
  picker.addEventListener("toggle", () => {
    if (!picker.open && picked) filters.requestSubmit();
  });
  filters.addEventListener("formdata", (event) => {
    if (event.formData.get("status") === "open") event.formData.delete("status");
    for (const name of ["q", "since"]) if (!event.formData.get(name)) event.formData.delete(name);
  });
  byId("fresh-load").addEventListener("click", async () => {
    if (!("first" in byId("results").dataset)) location.href = `/?${new URLSearchParams([...new URLSearchParams(byId("results").dataset.asked)].filter(([name]) => name !== "cursor"))}`;
    else {
      await reloadRows();
      window.scrollTo({ top: 0 });
      goTo(rows()[0]);
    }
  });
  byId("decide-form").addEventListener("submit", decideAsAsked);
  byId("decide-cancel").addEventListener("click", () => byId("decide").close());
  byId("decide").addEventListener("close", () => goTo(deciding && rowOf(deciding.id)));
  sessionStorage.setItem("queue", byId("results").dataset.asked);
  setTimeout(watch, refreshEvery);
}
if (byId("decision")) {
  byId("decision").addEventListener("change", () => {
    byId("note").required = "note" in byId("decision").querySelector("[name=status]:checked").dataset;
  });
  byId("back").search = sessionStorage.getItem("queue") ?? "";
}
if (byId("pulse").children.length) setTimeout(watchPulse, pulseEvery);
