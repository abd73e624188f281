// Dragging a card with mouse, pen or finger. HTML's own drag and drop knows no touch, so this uses pointer events.

const FAR_ENOUGH_PX = 7;

/**
 * Calls lifted(uid) when a card leaves its place and dropped(uid, element) when it is let go over an element for which
 * target(element) names a bus. A press without a drag stays an ordinary click.
 */
export function watchDrags({ lifted, dropped, target }) {
  const cards = document.getElementById("cards");
  let drag = null;

  cards.addEventListener("pointerdown", (event) => {
    const card = event.target.closest(".card:not(.new)");
    if (card === null || event.button !== 0) return;
    drag = { uid: card.dataset.uid, card, id: event.pointerId, x: event.clientX, y: event.clientY, ghost: null };
  });

  window.addEventListener("pointermove", (event) => {
    if (drag === null || event.pointerId !== drag.id) return;
    if (drag.ghost === null) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < FAR_ENOUGH_PX) return;
      lift();
      lifted(drag.uid);
    }
    moveGhost(event);
    highlight(target(elementAt(event)));
  });

  window.addEventListener("pointerup", (event) => {
    if (drag === null || event.pointerId !== drag.id) return;
    const { uid, ghost } = drag;
    const element = elementAt(event);
    end();
    if (ghost === null) return;
    swallowNextClick();
    if (target(element)) dropped(uid, element);
  });

  window.addEventListener("pointercancel", end);
  window.addEventListener("keydown", (event) => event.key === "Escape" && end());

  function lift() {
    const box = drag.card.getBoundingClientRect();
    const ghost = drag.card.cloneNode(true);
    ghost.classList.add("ghost");
    ghost.setAttribute("aria-hidden", "true");
    ghost.style.width = `${box.width}px`;
    ghost.style.height = `${box.height}px`;
    drag.ghost = ghost;
    drag.offset = { x: drag.x - box.left, y: drag.y - box.top };
    document.body.append(ghost);
    document.body.classList.add("dragging");
    // The page keeps the pointer although the cards may be drawn anew while it moves.
    document.body.setPointerCapture?.(drag.id);
  }

  function moveGhost(event) {
    const x = event.clientX - drag.offset.x;
    const y = event.clientY - drag.offset.y;
    drag.ghost.style.transform = `translate(${x}px, ${y}px) rotate(-2deg)`;
  }

  function end() {
    drag?.ghost?.remove();
    drag = null;
    document.body.classList.remove("dragging");
    highlight(null);
  }
}

function elementAt(event) {
  return document.elementFromPoint(event.clientX, event.clientY);
}

function highlight(key) {
  for (const bus of document.querySelectorAll(".bus")) bus.classList.toggle("over", bus.dataset.key === key);
}

// A pointer let go over the element it went down on is also a click; after a drag it must not choose or tap again.
function swallowNextClick() {
  const swallow = (event) => {
    event.stopPropagation();
    event.preventDefault();
  };
  window.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 0);
}
