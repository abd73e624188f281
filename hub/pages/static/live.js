// Keeps a page's live parts current. The hub renders every part; a message carries the name of a part and its
// HTML, and only what differs is touched, so that focus, selection and typed text stay where they are.
// Without this script the same pages work by reloading them.

const SILENCE_MS = 50_000; // the hub sends something at least every 15 s; three misses mean the stream is dead
const RETRY_MS = 3_000;
const SEND_AGAIN_MS = 5_000;
const SAY_AGAIN_MS = 5_000; // a screen reader is told of new taps at most this often

const sameDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const otherDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localise(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.textContent = (at.toDateString() === today ? sameDay : otherDay).format(at);
    time.title = whole.format(at);
  }
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset?.key : undefined;
}

// Makes the children of `old` equal to those of `fresh`; returns the keyed elements that were not there before.
function morphChildren(old, fresh) {
  const added = [];
  const keyed = new Map([...old.children].filter(key).map((child) => [key(child), child]));
  let at = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    const have = key(want) === undefined ? (at && key(at) === undefined ? at : null) : keyed.get(key(want));
    if (!have || have.nodeName !== want.nodeName) {
      old.insertBefore(want, at);
      if (key(want) !== undefined) added.push(want);
      else if (want.nodeType === Node.ELEMENT_NODE) added.push(...want.querySelectorAll("[data-key]"));
      continue;
    }
    keyed.delete(key(want));
    if (have === at) at = at.nextSibling;
    else old.insertBefore(have, at);
    if (want.nodeType === Node.ELEMENT_NODE) {
      morphAttributes(have, want);
      added.push(...morphChildren(have, want));
    } else if (have.nodeValue !== want.nodeValue) {
      have.nodeValue = want.nodeValue;
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  return added;
}

let saidAt = 0;
let unsaid = [];
let sayTimer;

function say(elements) {
  unsaid.unshift(...elements.map((element) => element.dataset.say).filter(Boolean));
  if (!unsaid.length || sayTimer) return;
  sayTimer = setTimeout(() => {
    const region = document.querySelector("[data-announce]");
    const [latest, ...others] = unsaid;
    region.textContent = others.length ? `${latest} And ${others.length} more.` : latest;
    [saidAt, unsaid, sayTimer] = [Date.now(), [], undefined];
  }, Math.max(0, saidAt + SAY_AGAIN_MS - Date.now()));
}

// What is new is tinted for a moment; not for people who asked for less motion.
function mark(elements) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const tint = getComputedStyle(document.documentElement).getPropertyValue("--accent-wash");
  for (const element of elements) element.animate([{ background: tint }, {}], { duration: 2400, easing: "ease-out" });
}

function show({ name, html }) {
  const part = document.querySelector(`[data-live="${CSS.escape(name)}"]`);
  if (!part) return;
  const fresh = document.createElement("template");
  fresh.innerHTML = html; // rendered and escaped by the hub, from our own origin only
  localise(fresh.content);
  const added = morphChildren(part, fresh.content);
  mark(added);
  say(added);
}

function pulse(tone, text) {
  const state = document.querySelector("[data-pulse]");
  if (!state || state.textContent === text) return;
  state.dataset.tone = tone;
  state.textContent = text;
}

function live(address) {
  let source;
  let watchdog;

  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(again, SILENCE_MS);
    pulse("good", "Live");
  };
  const close = () => {
    clearTimeout(watchdog);
    source?.close();
    source = undefined;
  };
  const lost = () => pulse("waiting", "Connection lost, trying again. Figures may be old.");
  const again = () => {
    close();
    lost();
    watchdog = setTimeout(reopen, RETRY_MS);
  };
  // An EventSource cannot say why it was refused; if the session ended, the page itself leads to the login.
  const reopen = async () => {
    const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
    if (answer?.ok) open();
    else if (answer && (answer.type === "opaqueredirect" || answer.status === 401)) location.reload();
    else again();
  };
  const open = () => {
    close();
    source = new EventSource(address);
    source.addEventListener("part", (event) => { heard(); show(JSON.parse(event.data)); });
    source.addEventListener("beat", heard);
    // The hub gave this stream up (we were too slow) or the session ended: a whole new page is right in both cases.
    source.addEventListener("reload", () => { close(); location.reload(); });
    source.onopen = heard;
    // The browser tries again by itself and says what it has already; only where it gave up it is our turn.
    source.onerror = () => (source?.readyState === EventSource.CLOSED ? again() : lost());
  };

  // Browsers allow few connections to one server: a page nobody looks at gives its own back.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  pulse("", "Connecting");
  if (!document.hidden) open();
}

// A form is sent once, however often its button is pressed; one that got nowhere can be sent again after a while.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
  setTimeout(() => delete event.target.dataset.sent, SEND_AGAIN_MS);
});
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

localise(document);
const events = document.querySelector("[data-events]");
if (events) live(events.dataset.events);
