// Draws a snapshot. Elements are kept and changed in place, so that focus, hover and screen readers stay where they are.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

/** The key of the bus that an element belongs to, or null. */
export function tapTarget(element) {
  return element?.closest?.(".bus")?.dataset.key ?? null;
}

export function render(snapshot, chosen) {
  setData(byId("verdict"), "tone", snapshot.verdict.tone);
  setText(byId("books"), snapshot.verdict.books);
  setText(byId("agree"), snapshot.verdict.agree);
  setText(byId("now"), snapshot.now);
  renderSteps(snapshot.steps);
  renderCards(snapshot.cards, chosen);
  renderBuses(snapshot.buses, snapshot.cards.find((card) => card.uid === chosen));
  renderTable(snapshot.table);
  renderLog(snapshot.log);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setData(element, name, value) {
  if (element.dataset[name] !== String(value)) element.dataset[name] = value;
}

/** Makes parent's children match items: one child per item, made by make() when missing, changed by update(). */
function match(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    if (index === parent.children.length) parent.append(make(item));
    update(parent.children[index], item);
  });
}

function make(tag, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function fromTemplate(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

function renderSteps(steps) {
  const next = steps.findIndex((step) => !step.done);
  match(byId("steps"), steps, () => make("li"), (li, step) => {
    setText(li, step.text);
    setData(li, "done", step.done ? "yes" : "no");
    setData(li, "next", steps[next] === step ? "yes" : "no");
  });
}

function renderCards(cards, chosen) {
  const fresh = { uid: "new", name: "New card", detail: "one that no ledger has met", balance: "+" };
  match(byId("cards"), [...cards, fresh], () => fromTemplate("card-template"), (element, card) => {
    const isNew = card.uid === "new";
    setData(element, "uid", card.uid);
    element.classList.toggle("new", isNew);
    element.setAttribute("role", isNew ? "button" : "radio");
    if (isNew) element.removeAttribute("aria-checked");
    else element.setAttribute("aria-checked", String(card.uid === chosen));
    element.tabIndex = isNew || card.uid === chosen ? 0 : -1;
    setText(element.querySelector(".card-name"), card.name);
    setText(element.querySelector(".card-uid"), card.detail);
    setText(element.querySelector(".card-balance"), card.balance);
  });
}

function renderBuses(buses, card) {
  match(byId("buses"), buses, () => fromTemplate("bus-template"), (element, bus) => {
    for (const name of ["key", "light", "network", "power"]) setData(element, name, bus[name]);
    renderBusName(element.querySelector(".bus-name"), bus);
    setText(element.querySelector(".route"), `Route ${bus.route}`);
    setText(element.querySelector(".fare"), `fare ${bus.fare}`);
    setText(element.querySelector(".display-main"), bus.main);
    setText(element.querySelector(".display-more"), bus.more);
    setText(element.querySelector(".target-text"), invitation(bus, card));
    renderState(element.querySelector(".bus-state"), bus);
    renderControls(element, bus);
  });
}

function invitation(bus, card) {
  if (bus.power !== "on") return bus.power === "off" ? "Start it to tap here" : "One moment";
  return card ? `Tap ${card.name} here` : "Choose a card first";
}

function renderBusName(title, bus) {
  if (title.firstChild === null) title.append(document.createTextNode(""), make("small"));
  setText(title.lastElementChild, ` ${bus.door}`);
  if (title.firstChild.data !== bus.name) title.firstChild.data = bus.name;
}

function renderState(line, bus) {
  if (line.firstChild === null) line.append(make("strong"), document.createTextNode(""));
  setText(line.firstElementChild, bus.state);
  const rest = ` ${bus.stateMore}`;
  if (line.lastChild.data !== rest) line.lastChild.data = rest;
}

function renderControls(element, bus) {
  const network = element.querySelector("[data-action=network]");
  const power = element.querySelector("[data-action=power]");
  setText(network, bus.network === "cut" ? "Restore network" : "Cut network");
  network.classList.toggle("primary", bus.network === "cut");
  setText(power, { on: "Kill it (−9)", off: "Start again", starting: "Starting …" }[bus.power]);
  power.disabled = bus.power === "starting";
  power.classList.toggle("primary", bus.power === "off");
  power.classList.toggle("quiet", bus.power !== "off");
  network.setAttribute("aria-label", `${network.textContent}: ${bus.name}`);
  power.setAttribute("aria-label", `${power.textContent}: ${bus.name}`);
}

function renderTable(table) {
  match(byId("ledger-head"), [{ name: "Card", detail: "" }, ...table.columns],
    () => make("th", { scope: "col", role: "columnheader" }), (th, column) => {
      if (th.firstChild === null) th.append(document.createTextNode(""), make("small"));
      if (th.firstChild.data !== column.name) th.firstChild.data = column.name;
      setText(th.lastElementChild, column.detail);
    });
  renderRows(byId("ledger-cards"), table.cards);
  renderRows(byId("ledger-facts"), table.facts);
}

function renderRows(body, rows) {
  match(body, rows, () => make("tr", { role: "row" }), (tr, row) => {
    match(tr, [row, ...row.cells], (item) => (item === row
      ? make("th", { scope: "row", role: "rowheader" })
      : make("td", { role: "cell" })), (element, item) => {
      if (item === row) setText(element, row.name);
      else renderCell(element, item);
    });
  });
}

function renderCell(td, cell) {
  setData(td, "state", cell.state);
  const told = JSON.stringify(cell);
  if (td.dataset.told === told) return;
  td.dataset.told = told;
  td.replaceChildren();
  if (cell.digest) td.append(glyph(cell.digest));
  const text = make("span", { class: cell.digest ? "hex" : "amount" });
  text.textContent = cell.text;
  td.append(text);
  for (const line of cell.notes) {
    const note = make("span", { class: "note" });
    note.textContent = line;
    td.append(note);
  }
}

/** Ten strokes, their heights taken from the digest's first ten hex digits. */
function glyph(digest) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 60 22");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  [...digest.slice(0, 10)].forEach((digit, index) => {
    const height = 3 + Number.parseInt(digit, 16) * 1.25;
    const stroke = document.createElementNS(SVG, "rect");
    const box = { x: index * 6, y: 22 - height, width: 3.5, height, rx: 1 };
    for (const [name, value] of Object.entries(box)) stroke.setAttribute(name, String(value));
    svg.append(stroke);
  });
  return svg;
}

function renderLog(entries) {
  match(byId("log"), entries, () => {
    const li = make("li");
    li.append(make("time"), make("span"));
    return li;
  }, (li, entry) => {
    setText(li.firstElementChild, entry.at);
    setText(li.lastElementChild, entry.text);
  });
}
