"use strict";
// Keeps what stands in #live as the collector has it. Without this script the page is the same, as of
// when it was loaded. The server says when something has changed; a refresh waits as long as ten of
// the last one took, so that a large ledger is not read all the time.
const PAUSE_LEAST_MS = 1000;
const POLL_MS = 5000;
const state = document.getElementById("state");
let changed = false;
let waiting = false;
let pauseMs = PAUSE_LEAST_MS;

function tell(text, isBad) {
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("bad", isBad);
}

// What has the focus, and what is open, is the same afterwards.
function place(live) {
  const active = document.activeElement;
  const all = [...live.querySelectorAll("a, summary, [tabindex]")];
  const open = [...live.querySelectorAll("details")].map((details) => details.open);
  return { focus: live.contains(active) ? all.indexOf(active) : -1, open };
}

function put(live, { focus, open }) {
  [...live.querySelectorAll("details")].forEach((details, at) => {
    details.open = open[at] ?? details.open;
  });
  if (focus >= 0) {
    live.querySelectorAll("a, summary, [tabindex]")[focus]?.focus({ preventScroll: true });
  }
}

async function refresh() {
  const begun = performance.now();
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = made.getElementById("live");
    if (!answer.ok || fresh === null) throw new Error("status " + answer.status);
    const live = document.getElementById("live");
    const before = place(live);
    live.replaceWith(fresh);
    put(fresh, before);
    tell("Live", false);
  } catch (error) {
    tell("No answer from the collector: " + error.message, true);
  }
  pauseMs = Math.max(PAUSE_LEAST_MS, 10 * (performance.now() - begun));
}

async function follow() {
  if (waiting) return;
  waiting = true;
  while (changed && !document.hidden) {
    changed = false;
    await refresh();
    await new Promise((done) => setTimeout(done, pauseMs));
  }
  waiting = false;
}

function onChange() {
  changed = true;
  follow();
}

function listen() {
  const changes = new EventSource("/page/changes");
  changes.onopen = () => tell("Live", false);
  changes.onmessage = onChange;
  changes.onerror = () => {
    if (changes.readyState !== EventSource.CLOSED) {
      tell("Connecting again", true);
      return;
    }
    // Too many listen already: ask now and then.
    setInterval(onChange, POLL_MS);
  };
}

document.addEventListener("visibilitychange", follow);
listen();
