"use strict";
// The map: points or small pictures on a canvas, to zoom, pan, filter and open. Text is only ever set as text.
const byId = (id) => document.getElementById(id);
const { labels, points, side, columns, sheets } = JSON.parse(byId("payload").textContent);
const [canvas, tip, told, large] = ["map", "tip", "told", "large"].map(byId);
const [pictures, wrong] = ["pictures", "wrong"].map(byId);
const boxes = [...document.querySelectorAll("#labels input")];
const pen = canvas.getContext("2d");
const images = sheets.map((source) => Object.assign(new Image(), { src: source, onload: later }));
const dark = matchMedia("(prefers-color-scheme: dark)");
const NEAR = 18, MARGIN = 36, FEW = 700;
const view = { zoom: 1, x: 0.5, y: 0.5 };
let picked = -1, waiting = false;

const shown = (one) => boxes[one.label].checked && (!wrong.checked || one.mistake);
let room;  // asking the page for it is slow, and every point needs it
const size = () => (room ??= { width: canvas.clientWidth, height: canvas.clientHeight });
const span = (axis) => Math.max(2 * Math.max(...points.map((one) => Math.abs(one[axis] - 0.5))), 1e-6);
const [across, down] = [span("x"), span("y")];
const scale = () => view.zoom * Math.max(Math.min((size().width - 2 * MARGIN) / across, (size().height - 2 * MARGIN) / down), 10);

const pictureSide = () => Math.min(Math.max(0.62 * scale() / Math.sqrt(points.length), 12), Math.max(side, 48));
const reach = () => (pictures.checked ? Math.max(NEAR, 0.7 * pictureSide()) : NEAR);

function place(one) {
  const { width, height } = size();
  return [(one.x - view.x) * scale() + width / 2, (one.y - view.y) * scale() + height / 2];
}

function thumbnail(index) {
  const within = index % columns ** 2;
  return [images[Math.floor(index / columns ** 2)], (within % columns) * side, Math.floor(within / columns) * side];
}

function later() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function draw() {
  waiting = false;
  const { width, height } = size(), sharp = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * sharp) || canvas.height !== Math.round(height * sharp)) {
    [canvas.width, canvas.height] = [Math.round(width * sharp), Math.round(height * sharp)];
  }
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const colours = { bad: style.getPropertyValue("--bad"), surface: style.getPropertyValue("--surface"), text: style.getPropertyValue("--text") };
  const wide = pictureSide();
  const seen = [...points.keys()].filter((index) => shown(points[index]));
  seen.sort((one, other) => points[one].mistake - points[other].mistake || (one === picked) - (other === picked));
  for (const index of seen) {
    const [x, y] = place(points[index]);
    if (x < -99 || y < -99 || x > width + 99 || y > height + 99) continue;
    if (pictures.checked) drawPicture(index, x, y, wide, colours);
    else drawPoint(points[index], x, y, colours);
  }
  if (picked >= 0 && shown(points[picked])) drawPicked(...place(points[picked]), pictures.checked ? wide * 0.8 : 11, colours);
  showTip();
}

function drawPoint(one, x, y, colours) {
  const radius = points.length > 2000 ? 3.5 : 5;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fillStyle = one.said === null ? colours.surface : labels[one.label].colour;
  pen.fill();
  pen.lineWidth = 2;
  pen.strokeStyle = labels[one.label].colour;
  pen.stroke();
  if (one.mistake) drawRing(x, y, radius + 3, colours.bad, 2.5);
}

function drawPicture(index, x, y, wide, colours) {
  const one = points[index], [sheet, left, top] = thumbnail(index);
  const [x1, y1] = [x - wide / 2, y - wide / 2];
  if (sheet.complete && sheet.naturalWidth) pen.drawImage(sheet, left, top, side, side, x1, y1, wide, wide);
  pen.setLineDash(one.said === null ? [3, 3] : []);
  pen.lineWidth = wide > 24 ? 3 : 2;
  pen.strokeStyle = labels[one.label].colour;
  pen.strokeRect(x1, y1, wide, wide);
  pen.setLineDash([]);
  if (!one.mistake) return;
  const badge = Math.max(wide / 7, 4);
  pen.beginPath();
  pen.arc(x1 + wide, y1, badge, 0, 7);
  pen.fillStyle = colours.bad;
  pen.fill();
  drawRing(x1 + wide, y1, badge, colours.surface, 1.5);
}

function drawRing(x, y, radius, colour, thick) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.lineWidth = thick;
  pen.strokeStyle = colour;
  pen.stroke();
}

const drawPicked = (x, y, radius, colours) => drawRing(x, y, radius, colours.text, 2.5);

function showTip() {
  const one = points[picked];
  tip.hidden = !one || !shown(one);
  canvas.classList.toggle("over", !tip.hidden);
  if (tip.hidden) return;
  const [sheet, left, top] = thumbnail(picked), [x, y] = place(one), { width, height } = size();
  if (sheet.complete && sheet.naturalWidth) large.getContext("2d").drawImage(sheet, left, top, side, side, 0, 0, large.width, large.height);
  byId("tip-label").textContent = one.said ?? one.predicted;
  byId("tip-more").textContent = describe(one);
  byId("tip-more").className = one.mistake ? "bad" : "";
  byId("tip-name").textContent = one.name;
  const right = x + 24 + tip.offsetWidth > width ? x - 24 - tip.offsetWidth : x + 24;
  tip.style.transform = `translate(${Math.max(right, 4)}px, ${Math.max(Math.min(y - 40, height - tip.offsetHeight - 8), 4)}px)`;
}

function describe(one) {
  if (one.said === null) return "only predicted";
  if (!one.predicted) return "labelled by people";
  return one.mistake ? `mistake: predicted ${one.predicted}` : "predicted so too";
}

function pick(index, aloud) {
  if (picked === index) return;
  picked = index;
  const one = points[index];
  if (aloud && one) told.textContent = `${one.said ?? one.predicted}, ${describe(one)}, ${one.name}`;
  later();
}

function nearest(x, y, fits = () => true, most = Infinity) {
  let [best, least] = [-1, most];
  points.forEach((one, index) => {
    if (!shown(one)) return;
    const [left, top] = place(one), far = Math.hypot(left - x, top - y);
    if (far <= least && fits(left - x, top - y, index)) [best, least] = [index, far];
  });
  return best;
}

function zoom(factor, x = size().width / 2, y = size().height / 2) {
  const { width, height } = size(), before = scale();
  const [mapX, mapY] = [view.x + (x - width / 2) / before, view.y + (y - height / 2) / before];
  view.zoom = Math.min(Math.max(view.zoom * factor, 0.5), 400);
  [view.x, view.y] = [mapX - (x - width / 2) / scale(), mapY - (y - height / 2) / scale()];
  later();
}

function whole() {
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  later();
}

function open(index) {
  if (index < 0) return;
  const link = { href: points[index].href, target: "_blank", rel: "noopener noreferrer" };
  Object.assign(document.createElement("a"), link).click();
}

function step(right, below) {
  if (picked < 0 || !shown(points[picked])) return pick(nearest(size().width / 2, size().height / 2), true);
  const [x, y] = place(points[picked]);
  const ahead = (dx, dy, index) => index !== picked && dx * right + dy * below > Math.abs(dx * below - dy * right);
  const found = nearest(x, y, ahead);
  if (found < 0) return;
  pick(found, true);
  const [left, top] = place(points[found]), { width, height } = size();
  if (left < 0 || top < 0 || left > width || top > height) [view.x, view.y] = [points[found].x, points[found].y];
}

const keys = {
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole, Enter: () => open(picked), Escape: () => pick(-1),
};
canvas.addEventListener("keydown", (event) => {
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});

const held = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, event);
  moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const before = held.get(event.pointerId);
  if (!before) return pick(nearest(event.offsetX, event.offsetY, undefined, reach()));
  const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
  const [dx, dy] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
  moved += Math.hypot(dx, dy);
  if (other) {
    const apart = (one) => Math.max(Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY), 1);
    zoom(apart(event) / apart(before), other.offsetX, other.offsetY);
  } else if (moved > 3) {
    canvas.classList.add("moving");
    view.x -= dx / scale();
    view.y -= dy / scale();
    later();
  }
  held.set(event.pointerId, event);
});
function up(event) {
  const was = held.delete(event.pointerId);
  canvas.classList.remove("moving");
  return was;
}
canvas.addEventListener("pointerup", (event) => {
  if (up(event) && moved <= 3 && !held.size) {
    pick(nearest(event.offsetX, event.offsetY, undefined, reach()), true);
    open(picked);
  }
});
canvas.addEventListener("pointercancel", up);
canvas.addEventListener("pointerleave", () => pick(-1));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });

byId("in").addEventListener("click", () => zoom(1.5));
byId("out").addEventListener("click", () => zoom(1 / 1.5));
byId("whole").addEventListener("click", whole);
for (const [id, on] of [["all", true], ["none", false]]) {
  byId(id).addEventListener("click", () => {
    for (const box of boxes) box.checked = on;
    later();
  });
}
byId("how").addEventListener("submit", (event) => event.preventDefault());
for (const box of [...boxes, pictures, wrong]) box.addEventListener("change", later);
dark.addEventListener("change", later);
new ResizeObserver(() => {
  room = undefined;
  later();
}).observe(canvas);
pictures.checked = points.length <= FEW;
later();
