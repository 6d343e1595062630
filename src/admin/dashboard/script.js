// The one script of the dashboard: times in the reader's zone, countdowns, parts that are kept up to date.
"use strict";

const RETRY_MS = 10000;
const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
// How far the server's clock is ahead of this one.
let ahead = 0;
let source = null;
// What came for parts that the reader is in.
const waiting = new Map();

// A time whose text is its own machine form is shown in the reader's zone; its title keeps UTC.
function localise(root) {
  for (const time of root.querySelectorAll("time")) {
    if (time.textContent === time.dateTime) time.textContent = format.format(new Date(time.dateTime));
  }
}

// What is left until a time, in a text that is as long from one second to the next.
function left(until) {
  const secs = Math.max(0, Math.round((until - Date.now() - ahead) / 1000));
  if (secs === 0) return "expired";
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(secs / 3600), Math.floor(secs / 60) % 60];
  return hours > 0 ? `in ${hours} h ${two(minutes)} min` : `in ${two(minutes)} min ${two(secs % 60)} s`;
}

function countDown() {
  for (const time of document.querySelectorAll("time[data-until]")) {
    const text = left(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

// Makes the children of `old` those of `now`, and leaves what is the same: a table keeps its place.
function bring(old, now) {
  const [from, to] = [[...old.childNodes], [...now.childNodes]];
  to.forEach((node, at) => {
    const is = from[at];
    if (!is) old.append(node);
    else if (is.nodeName !== node.nodeName || !node.children?.length || !hasSame(is, node)) {
      if (!is.isEqualNode(node)) is.replaceWith(node);
    } else bring(is, node);
  });
  from.slice(to.length).forEach((node) => node.remove());
}

function hasSame(one, other) {
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}

// Shows what has come, but for parts in which the reader is or has selected a text.
function show() {
  for (const part of document.querySelectorAll("[data-live]")) {
    const html = waiting.get(part.dataset.live);
    const selection = getSelection();
    const isSelected = !selection.isCollapsed && selection.containsNode(part, true);
    if (html === undefined || isSelected || part.contains(document.activeElement)) continue;
    waiting.delete(part.dataset.live);
    const template = document.createElement("template");
    template.innerHTML = html;
    localise(template.content);
    bring(part, template.content);
  }
  countDown();
}

// One stream for a page in sight: a browser has few connections to one server.
function connect() {
  if (source || document.hidden || !document.querySelector("[data-live]")) return;
  source = new EventSource(location.href);
  source.addEventListener("time", (event) => { ahead = Number(event.data) - Date.now(); });
  source.addEventListener("part", (event) => {
    const [name, html] = JSON.parse(event.data);
    waiting.set(name, html);
    show();
  });
  source.addEventListener("end", () => location.reload());
  source.addEventListener("error", () => { if (source?.readyState === EventSource.CLOSED) refused(); });
}

function disconnect() {
  source?.close();
  source = null;
}

// The server gives no stream: the session has ended, or there is none to be had now.
async function refused() {
  disconnect();
  try {
    const headers = { Accept: "text/html", "X-Ads-Dashboard": "live" };
    const response = await fetch(location.href, { method: "HEAD", headers, redirect: "manual" });
    if (response.type === "opaqueredirect" || response.status === 401) return location.reload();
  } catch {
    // It is away; the next attempt may reach it.
  }
  setTimeout(connect, RETRY_MS);
}

localise(document);
countDown();
document.querySelector("form[data-send]")?.requestSubmit();
setInterval(countDown, 1000);
connect();
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
document.addEventListener("focusout", () => setTimeout(show));
document.addEventListener("selectionchange", show);
addEventListener("pagehide", disconnect);
// A page that the browser kept may be one of a session that has ended.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
