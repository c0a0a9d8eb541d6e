// Keeps the page as the worker tells it, every three seconds. Everything is set as text; nothing is decided here.
"use strict";

const EVERY = 3000;
const lang = encodeURIComponent(document.documentElement.lang);
const find = (told, path) => path.split(".").reduce((at, key) => at[key], told);
const each = (name, act) => document.querySelectorAll(`[data-${name}]`).forEach((node) => act(node, node.dataset[name]));

// What has not changed is left alone: whoever has marked a text keeps it marked, and readers hear nothing twice.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function fill(row, told) {
  row.className = told.tone;
  while (row.cells.length < told.cells.length) {
    const cell = document.createElement(row.cells.length ? "td" : "th");
    if (!row.cells.length) cell.scope = "row";
    row.append(cell);
  }
  told.cells.forEach((text, at) => say(row.cells[at], text));
}

function show(told) {
  each("text", (node, path) => say(node, find(told, path)));
  each("points", (node, path) => node.setAttribute("points", find(told, path)));
  each("tone", (node, path) => { node.className = find(told, path); });
  each("shown", (node, path) => { node.hidden = !find(told, path); });
  each("hidden", (node, path) => { node.hidden = find(told, path); });
  each("rows", (body, path) => {
    const rows = find(told, path);
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((row, at) => fill(body.rows[at] ?? body.insertRow(), row));
  });
}

async function refresh() {
  if (!document.hidden) {
    const lost = document.getElementById("lost");
    try {
      const answer = await fetch(`/window.json?lang=${lang}`, { signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(`${answer.status}`);
      show(await answer.json());
      lost.hidden = true;
    } catch {
      lost.hidden = false;
    }
  }
  setTimeout(refresh, EVERY);
}

setTimeout(refresh, EVERY);
