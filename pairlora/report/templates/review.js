const token = document.querySelector('meta[name="review-token"]').content;

if (token) {
  const pairs = new Map([...document.querySelectorAll("[data-pair]")].map((place) => [place.dataset.pair, place]));

  const mark = ({ pair_id, verdict, words }) => {
    const place = pairs.get(pair_id);
    if (!place) return;
    const line = place.querySelector("[data-decision]");
    line.textContent = words;
    line.className = `decision ${verdict}`;
    if (place.matches(".card")) place.dataset.decision = verdict;
  };

  const decide = async (place, verdict) => {
    const form = place.querySelector("form.decide");
    const status = form.querySelector("[role=status]");
    const strength = form.elements.strength.value;
    const body = { pair_id: place.dataset.pair, verdict, strength: strength ? Number(strength) : null, comment: form.elements.comment.value };
    const headers = { "Content-Type": "application/json", "X-Review-Token": token };
    try {
      const answer = await fetch("/reviews", { method: "POST", headers, body: JSON.stringify(body) });
      const found = await answer.json();
      if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : "it was refused");
      mark(found);
      status.textContent = "saved";
      document.dispatchEvent(new Event("decided"));
    } catch (error) {
      status.textContent = `not saved: ${error.message}`;
    }
  };

  for (const place of pairs.values()) {
    const form = document.getElementById("decide").content.firstElementChild.cloneNode(true);
    form.elements.strength.value = place.dataset.strength;
    form.addEventListener("submit", (event) => event.preventDefault());  // Enter in a field decides nothing
    for (const button of form.querySelectorAll("button")) button.addEventListener("click", () => decide(place, button.value));
    place.querySelector("[data-decision]").after(form);
  }
  for (const place of document.querySelectorAll("[data-fingerprint]")) {
    for (const role of ["style", "content"]) {
      const link = document.createElement("a");
      link.href = `/adapters/${place.dataset.fingerprint}/${role}.safetensors`;
      link.download = `${role}.safetensors`;
      link.textContent = `${role}.safetensors`;
      place.append(" · ", link);
    }
  }
  document.getElementById("how-to-decide")?.remove();
  fetch("/reviews", { headers: { "X-Review-Token": token } }).then((answer) => answer.json()).then((found) => {
    found.forEach(mark);
    document.dispatchEvent(new Event("decided"));
  });
}
