// What the page does beyond what the server made. It works without: the log then shows what was there, and the form nothing.
"use strict";

// The preview of a seller's form: shows what would be kept with the asset.
const preview = document.getElementById("preview");
if (preview) {
  const shown = document.getElementById("meta-info");
  // A field may be called as a property of its form is, or of any object: neither is asked.
  const update = () => {
    const metaInfo = Object.create(null);
    for (const field of document.querySelectorAll("#preview [data-field]")) {
      metaInfo[field.dataset.field] = field.type === "checkbox" ? field.checked : field.value;
    }
    shown.textContent = JSON.stringify(metaInfo, null, 2);
  };
  document.addEventListener("input", update);
  document.addEventListener("submit", (event) => {
    if (event.target.id === "preview" || event.target === preview) {
      event.preventDefault();
    }
  });
  update();
}

// The log goes on with what comes. Everything is put in as text, never as HTML.
const log = document.getElementById("log");
const live = document.getElementById("live");
if (log && live && log.dataset.query) {
  const state = document.getElementById("live-state");
  const most = 500;
  let newest = Number(log.dataset.newest);

  const cell = (row, label, kind, ...content) => {
    const td = document.createElement("td");
    td.dataset.label = label;
    td.className = kind;
    td.append(...content.filter((part) => part !== ""));
    row.append(td);
  };
  const element = (name, className, text) => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  };
  // What the server shows as a sign, this shows as the same.
  const visible = (text) => String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u{e0000}-\u{e007f}]/gu, "\ufffd");

  const add = (line) => {
    const row = document.createElement("tr");
    row.className = "fresh";
    cell(row, "Ended (UTC)", "short", line.date);
    cell(row, "Event", "event", visible(line.event));
    cell(row, "Object", "", visible(line.object));
    cell(row, "Listener", "", visible(line.listener), line.attempt > 1 ? element("span", "help", ` attempt ${line.attempt}`) : "");
    cell(row, "Status", "short", element("span", `tag ${line.class}`, line.status));
    cell(row, "Took", "short", line.took);
    const link = document.createElement("a");
    if (line.delivery !== null) {
      link.href = `/deliveries/${Number(line.delivery)}`;
      link.textContent = `delivery ${line.delivery}`;
    }
    cell(row, "Error", "", visible(line.error), line.error && line.delivery !== null ? " " : "", line.delivery !== null ? link : "");
    log.prepend(row);
    while (log.rows.length > most) {
      log.deleteRow(-1);
    }
    document.getElementById("log-empty")?.remove();
  };

  const ask = async () => {
    if (!live.checked || document.hidden) {
      return;
    }
    const query = new URL(log.dataset.query, location.href);
    query.searchParams.delete("cursor");
    query.searchParams.set("after", String(newest));
    const answer = await fetch(query, { redirect: "error" });
    if (!answer.ok) {
      throw new Error(`status ${answer.status}`);
    }
    for (const line of await answer.json()) {
      newest = Math.max(newest, line.id);
      add(line);
    }
    state.textContent = "";
  };

  // One question at a time; a server that doesn't answer is asked less often.
  const go = async () => {
    let pause = 1000;
    try {
      await ask();
    } catch {
      state.textContent = "The server doesn't answer; load the page again.";
      pause = 10000;
    }
    setTimeout(go, pause);
  };
  setTimeout(go, 1000);
}
