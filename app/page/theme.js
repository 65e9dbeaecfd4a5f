// The theme: dark, as reading rooms are, whatever the system prefers; or light, if the reader chooses it.

import { byId } from "./element.js";

const NAME = "cxr-serve-theme";

/** Let the button in the head change the theme, and remember it. */
export function listenForTheme() {
  const button = byId("theme", HTMLButtonElement);
  const draw = (/** @type {boolean} */ isLight) => {
    document.documentElement.dataset.theme = isLight ? "light" : "dark";
    button.textContent = isLight ? "Dark" : "Light";
    button.setAttribute("aria-label", `${button.textContent} theme`);
  };
  button.addEventListener("click", () => {
    const isLight = document.documentElement.dataset.theme !== "light";
    localStorage.setItem(NAME, isLight ? "light" : "dark");
    draw(isLight);
  });
  draw(localStorage.getItem(NAME) === "light");
}
