"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const numeric = "numeric" in head.dataset;
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
    const compare = (a, b) =>
      numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    body.append(...rows);
  });
}
const dialog = document.getElementById("enlarged");
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    const copies = [...button.childNodes].map((node) => node.cloneNode(true));
    dialog.querySelector("div").replaceChildren(...copies);
    dialog.querySelector("p").textContent = button.querySelector("img").alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.from);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
// What comes of believing the answers of a detector from a score on.
const slider = document.getElementById("threshold");
if (slider) {
  const scores = JSON.parse(document.getElementById("scores").textContent);
  const table = document.getElementById("by-class"), written = document.getElementById("threshold-score");
  const percent = (v) => (v === null ? "–" : `${(100 * v).toFixed(1)}\u00a0%`);
  const ratio = (a, b) => (b ? a / b : null);
  const show = (row, support, given, right) => {
    const figures = {
      found: right, alarms: given - right, precision: ratio(right, given),
      recall: ratio(right, support), f1: ratio(2 * right, given + support),
    };
    for (const [name, value] of Object.entries(figures)) {
      const cell = row.querySelector(`[data-figure="${name}"]`), bar = cell.querySelector(".bar");
      const share = bar !== null;
      (bar ?? cell).textContent = share ? percent(value) : value.toLocaleString("en-US");
      if (share) bar.style.setProperty("--v", value ?? 0);
      cell.dataset.value = value ?? -1;
    }
  };
  const update = () => {
    const at = Number(slider.value), sum = (rows) => rows.reduce((all, row) => all + row[at], 0);
    written.textContent = scores.thresholds[at].toFixed(2);
    slider.setAttribute("aria-valuetext", `score ${scores.thresholds[at].toFixed(2)}`);
    for (const row of table.tBodies[0].rows) {
      const i = Number(row.dataset.class);
      show(row, scores.support[i], scores.given[i][at], scores.right[i][at]);
    }
    const support = scores.support.reduce((all, one) => all + one, 0);
    show(table.tFoot.rows[0], support, sum(scores.given), sum(scores.right));
  };
  slider.addEventListener("input", update);
  document.getElementById("threshold-best").addEventListener("click", () => {
    slider.value = scores.best;
    update();
  });
  document.getElementById("chooser").hidden = false;
}
