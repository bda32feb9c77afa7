"use strict";
const dialog = document.getElementById("enlarged");
document.addEventListener("click", (event) => {
  const picture = event.target.closest("button.tile")?.querySelector("img");
  if (picture) {
    const [shown, words] = dialog.children;
    shown.src = picture.src;
    shown.alt = picture.alt;
    shown.className = picture.className;
    words.textContent = picture.alt;
    dialog.showModal();
  } else if (dialog.open) {
    dialog.close();
  }
});

function sortRows(heading) {
  const column = [...heading.parentElement.children].indexOf(heading);
  const descending = heading.ariaSort === "ascending" || (heading.dataset.sort === "number" && heading.ariaSort !== "descending");
  const body = heading.closest("table").tBodies[0];
  const valueOf = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
  const isKnown = (row) => valueOf(row) !== "";
  const compare = (a, b) => heading.dataset.sort === "number" ? valueOf(a) - valueOf(b) : valueOf(a).localeCompare(valueOf(b));
  const rows = [...body.rows].sort((a, b) => isKnown(b) - isKnown(a) || (descending ? compare(b, a) : compare(a, b)));
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
}

for (const heading of document.querySelectorAll("th[data-sort]")) {
  heading.tabIndex = 0;
  heading.addEventListener("click", () => sortRows(heading));
  heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sortRows(heading); });
}
