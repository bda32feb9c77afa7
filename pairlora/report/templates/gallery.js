const controls = document.getElementById("controls");
const gallery = document.getElementById("gallery");

if (controls) {
  const cards = [...gallery.children];
  const words = new Map(cards.map((card) => [card, `${card.textContent} ${card.dataset.words ?? ""}`.toLowerCase()]));
  const fields = controls.elements;
  const chosen = ["verdict", "status", "group", "decision"].filter((name) => fields[name]);
  const numberOf = (card, name) => (card.dataset[name] ?? "") === "" ? NaN : Number(card.dataset[name]);

  const isShown = (card) => {
    if (!fields.text.value.toLowerCase().split(/\s+/).every((word) => words.get(card).includes(word))) return false;
    if (chosen.some((name) => fields[name].value && fields[name].value !== card.dataset[name])) return false;
    const value = numberOf(card, fields.sort.value);
    return !(fields.low.value && !(value >= Number(fields.low.value))) && !(fields.high.value && !(value <= Number(fields.high.value)));
  };

  const compare = (a, b) => {
    const name = fields.sort.value;
    const sign = fields.descending.checked ? -1 : 1;
    if (name === "name") return sign * a.dataset.name.localeCompare(b.dataset.name);
    const [first, second] = [numberOf(a, name), numberOf(b, name)];
    if (isNaN(first) || isNaN(second)) return isNaN(first) - isNaN(second);  // what has no value comes last, either way
    return sign * (first - second) || a.dataset.row - b.dataset.row;
  };

  const show = () => {
    let count = 0;
    for (const card of cards) {
      card.hidden = !isShown(card);
      count += !card.hidden;
    }
    fields.low.disabled = fields.high.disabled = fields.sort.value === "name";
    gallery.append(...[...cards].sort(compare));
    controls.querySelector("output").textContent = count === cards.length ? `${count} pairs` : `${count} of ${cards.length} pairs`;
    const state = new URLSearchParams([...new FormData(controls)].filter(([, value]) => value && value !== "row"));
    history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
  };

  const restore = () => {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = fields[name];
      if (field?.type === "checkbox") field.checked = true;
      else if (field) field.value = value;
    }
  };

  const step = (event) => {
    if (isTyping(event)) return;
    if (event.key === "/") {
      event.preventDefault();
      fields.text.focus();
    }
    if (event.key !== "j" && event.key !== "k") return;
    const shown = [...gallery.children].filter((card) => !card.hidden && card.querySelector("h3 a"));
    const at = shown.indexOf(document.activeElement?.closest?.(".gallery .card"));
    const next = shown[Math.max(0, Math.min(shown.length - 1, event.key === "j" ? at + 1 : at - 1))];
    next?.querySelector("h3 a").focus();
    next?.scrollIntoView({ block: "center" });
  };

  const filterBy = (event) => {
    const link = event.target.closest("a[data-filter]");
    if (!link) return;
    event.preventDefault();
    controls.reset();
    for (const [name, value] of new URLSearchParams(link.dataset.filter)) fields[name].value = value;
    show();
    document.getElementById("pairs").scrollIntoView();
    fields.text.focus({ preventScroll: true });
  };

  if (/[=&]/.test(location.hash)) restore();
  controls.hidden = false;
  controls.addEventListener("input", show);
  controls.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", step);
  document.addEventListener("click", filterBy);
  document.addEventListener("decided", show);
  if (/[=&]/.test(location.hash) || !location.hash) show();
}
