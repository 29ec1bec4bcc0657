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

// A tip stands under its shape, inside of the window; Escape closes it.
for (const shape of document.querySelectorAll(".shape")) {
  const tip = document.getElementById(shape.getAttribute("aria-describedby"));
  const place = () => {
    shape.classList.remove("closed");
    const box = shape.getBoundingClientRect(), width = Math.min(300, document.documentElement.clientWidth - 16);
    tip.style.maxWidth = `${width}px`;
    tip.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8))}px`;
    tip.style.top = box.bottom + 110 > window.innerHeight ? "auto" : `${box.bottom + 4}px`;
    tip.style.bottom = box.bottom + 110 > window.innerHeight ? `${window.innerHeight - box.top + 4}px` : "auto";
  };
  shape.addEventListener("mouseenter", place);
  shape.addEventListener("focus", place);
  shape.addEventListener("click", () => shape.focus());
  shape.addEventListener("keydown", (event) => event.key === "Escape" && shape.classList.add("closed"));
}
