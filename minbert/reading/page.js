"use strict";
const { tokens, maps } = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("map"), layer = document.getElementById("layer"), head = document.getElementById("head");

function draw() {
  const rows = maps[layer.value][head.value];
  table.caption.textContent = `attention of head ${+head.value + 1} in layer ${+layer.value + 1}`;
  table.tBodies[0].querySelectorAll("tr").forEach((tr, i) =>
    tr.querySelectorAll("td").forEach((td, j) => {
      td.textContent = rows[i][j].toFixed(2);
      td.style.setProperty("--p", rows[i][j]);
    }));
}
layer.addEventListener("change", draw);
head.addEventListener("change", draw);
draw();

// A tip stands under its shape, or above it, inside of the window; Escape closes it.
function place(shape) {
  const tip = document.getElementById(shape.getAttribute("aria-describedby"));
  const box = shape.getBoundingClientRect(), room = document.documentElement.clientWidth, width = Math.min(300, room - 16);
  tip.style.width = `${width}px`;
  tip.style.left = `${Math.max(8, Math.min(box.left, room - width - 8))}px`;
  const below = box.bottom + 130 < window.innerHeight;
  tip.style.top = below ? `${box.bottom + 4}px` : "auto";
  tip.style.bottom = below ? "auto" : `${window.innerHeight - box.top + 4}px`;
}
function open(event) {
  event.target.classList.remove("closed");
  place(event.target);
}
for (const shape of document.querySelectorAll(".shape")) {
  shape.addEventListener("mouseenter", open);
  shape.addEventListener("focus", open);
  shape.addEventListener("click", () => shape.focus());
  shape.addEventListener("keydown", (event) => event.key === "Escape" && shape.classList.add("closed"));
}
window.addEventListener("scroll", () => document.activeElement.matches(".shape") && place(document.activeElement), { passive: true });
