// The demo page: shows what the server says, and sends what the visitor does. It decides nothing itself.
import { render, tapTarget } from "./render.js";
import { watchDrags } from "./drag.js";

const NEW_CARD = "new";
let chosen = null;
let latest = null;

function show() {
  if (latest === null) return;
  chosen ??= latest.cards[0]?.uid ?? null;
  render(latest, chosen);
}

function choose(uid) {
  chosen = uid;
  show();
}

function say(text) {
  document.getElementById("now").textContent = text;
}

async function act(action) {
  try {
    const answer = await fetch("act", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(action),
    });
    const said = await answer.json();
    if (said.message) say(said.message);
    return said;
  } catch {
    say("The demo does not answer. Is it still running in its terminal?");
    return {};
  }
}

async function newCard() {
  const { card } = await act({ action: "new-card" });
  if (card) choose(card);
}

function present(bus, card) {
  if (card) act({ action: "present", bus, card });
}

document.getElementById("cards").addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card === null) return;
  if (card.dataset.uid === NEW_CARD) newCard();
  else choose(card.dataset.uid);
});

document.getElementById("buses").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button === null) return;
  const bus = button.closest(".bus");
  const { action } = button.dataset;
  if (action === "present") present(bus.dataset.key, chosen);
  if (action === "network") act({ action: bus.dataset.network === "cut" ? "restore" : "cut", bus: bus.dataset.key });
  if (action === "power") act({ action: bus.dataset.power === "off" ? "start" : "kill", bus: bus.dataset.key });
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const bus = document.querySelectorAll(".bus")[Number(event.key) - 1];
  if (/^[1-9]$/.test(event.key) && bus) present(bus.dataset.key, chosen);
  if (event.target.matches?.(".card")) moveAmongCards(event);
});

// A radio group: arrow keys move the choice, Tab leaves the group.
function moveAmongCards(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const cards = [...document.querySelectorAll(".card")];
  const next = cards[(cards.indexOf(event.target) + step + cards.length) % cards.length];
  next.focus();
  if (next.dataset.uid !== NEW_CARD) choose(next.dataset.uid);
}

watchDrags({
  lifted: choose,
  dropped: (uid, element) => present(tapTarget(element), uid),
  target: tapTarget,
});

const events = new EventSource("events");
events.addEventListener("snapshot", (event) => {
  latest = JSON.parse(event.data);
  document.body.classList.remove("gone");
  show();
});
events.addEventListener("error", () => {
  document.body.classList.add("gone");
  say("The demo has ended, or does not answer. Start it again and open the address it prints.");
});
