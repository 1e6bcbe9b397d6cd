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
    const small = button.querySelector("img"), large = dialog.querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    large.className = small.className;
    dialog.querySelector("p").textContent = small.alt;
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
