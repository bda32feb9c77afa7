"use strict";
const dialog = document.getElementById("enlarged");
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.tile");
  const picture = button?.querySelector("img");
  if (picture) {
    const [shown, words] = dialog.children;
    shown.onerror = () => { shown.onerror = null; shown.src = picture.src; };
    shown.src = button.dataset.full || picture.src;
    shown.alt = picture.alt;
    shown.className = picture.className;
    words.textContent = picture.alt;
    dialog.showModal();
  } else if (dialog.open) {
    dialog.close();
  }
});

const isTyping = (event) => event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || dialog.open;
