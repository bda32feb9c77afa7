const viewer = document.getElementById("viewer");

if (viewer) {
  const find = (id) => document.getElementById(id);
  const [dial, place] = [find("dial"), find("place")];
  const rows = [...document.querySelectorAll(".sheet tr[data-seed]")];
  const cellsOf = (row) => [...row.querySelectorAll("td[data-guided]")];

  const put = (image, source) => {
    image.src = source?.src ?? "";
    image.alt = source?.alt ?? "cannot be read";
    image.className = source?.className ?? "";
  };
  const show = () => {
    const row = rows[place.value];
    const cells = cellsOf(row);
    const truth = row.parentElement.querySelector(".truth img");
    const cell = cells[dial.value];
    put(find("viewed-unstyled"), cells[0].querySelector("img"));
    put(find("viewed-styled"), cell.querySelector("img"));
    find("viewed-label").textContent = cell.dataset.label + (cell.classList.contains("chosen") ? ", recommended" : "");
    dial.setAttribute("aria-valuetext", cell.dataset.label);
    find("viewed-goal").hidden = !truth;
    if (truth) put(find("viewed-truth"), truth);
  };

  rows.forEach((row, index) => place.add(new Option(`${row.parentElement.dataset.prompt}, seed ${row.dataset.seed}`, index)));
  dial.max = cellsOf(rows[0]).length - 1;
  const chosen = cellsOf(rows[0]).findIndex((cell) => cell.classList.contains("chosen"));
  dial.value = chosen < 0 ? dial.max : chosen;
  dial.addEventListener("input", show);
  place.addEventListener("change", show);
  viewer.hidden = false;
  show();
}

document.addEventListener("keydown", (event) => {
  if (isTyping(event)) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && !event.target.closest(".wide") && document.querySelector(`a[rel="${rel}"]`);
  if (link) location.assign(link.href);
});
