"use strict";
// Puts the cards that the server sends into their places; without JavaScript the page shows how far it was.
const [cards, lost, address] = [document.getElementById("cards"), document.getElementById("lost"), document.body.dataset.events];

function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

// Changes only what differs, so that focus and selection stay where they are.
function become(old, wanted) {
  if (old.nodeName !== wanted.nodeName || old.childNodes.length !== wanted.childNodes.length) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE && old.data !== wanted.data) old.data = wanted.data;
  for (const { name } of [...(old.attributes ?? [])]) if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of [...(wanted.attributes ?? [])]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const parts = [...wanted.childNodes];
  [...old.childNodes].forEach((part, index) => become(part, parts[index]));
}

async function refreshFailed() {
  const list = document.getElementById("failed");
  const answer = list && await fetch(location.href);
  if (answer?.ok) become(list, parse(await answer.text()).getElementById("failed"));
}

if (address) {
  const source = new EventSource(address);
  source.addEventListener("open", () => { lost.hidden = true; });
  source.addEventListener("error", () => { lost.hidden = false; });
  source.addEventListener("end", () => source.close());
  source.addEventListener("card", (event) => {
    const card = parse(event.data).querySelector("article");
    const old = document.getElementById(card.id);
    const more = old && old.dataset.failed !== card.dataset.failed;
    if (old) become(old, card);
    else cards.prepend(card);
    if (more) refreshFailed();
  });
}
