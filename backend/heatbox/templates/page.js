"use strict";
// Filters the cards by label and file name; without JavaScript the page shows everything.
const [form, label, name, found, nothing] = ["filter", "label", "name", "found", "nothing"].map((id) => document.getElementById(id));
const cards = [...document.querySelectorAll(".card")];

function update() {
  const wanted = name.value.trim().toLowerCase();
  let count = 0;
  for (const card of cards) {
    const rows = [...card.querySelectorAll(".row")];
    for (const row of rows) row.hidden = label.value !== "" && row.dataset.label !== label.value;
    const labelled = label.value === "" || rows.some((row) => !row.hidden);
    card.hidden = !labelled || !card.dataset.name.includes(wanted);
    count += !card.hidden;
  }
  found.textContent = `${count} of ${cards.length} shown`;
  nothing.hidden = count > 0 || cards.length === 0;
}

form.hidden = cards.length === 0;
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
update();
