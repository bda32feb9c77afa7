for (const card of document.querySelectorAll(".asset")) {
  const after = card.querySelector(".comparison .after");
  const cut = card.querySelector(".cut");
  const choices = [...card.querySelectorAll(".choice")];

  const choose = (choice) => {
    const picture = choice.querySelector("img");
    after.src = picture.src;
    after.alt = picture.alt;
    after.classList.toggle("crisp", picture.classList.contains("crisp"));
    after.hidden = cut.hidden = false;
    for (const one of choices) one.setAttribute("aria-pressed", one === choice);
  };
  const move = () => after.style.setProperty("--cut", `${cut.querySelector("input").value}%`);

  for (const choice of choices) choice.addEventListener("click", () => choose(choice));
  cut.addEventListener("input", move);
  move();
  if (choices.length) choose(choices[choices.length - 1]);
}
