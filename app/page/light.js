// The light of the room: dark, as reading rooms are, whatever the system prefers; light where the reader wants it.

import { byId } from "./element.js";

const NAME = "cxr-serve-light";

/** Let the button in the head change the light, and remember it. */
export function listenForLight() {
  const button = byId("light", HTMLButtonElement);
  const draw = (/** @type {boolean} */ isLight) => {
    document.documentElement.dataset.room = isLight ? "light" : "dark";
    button.textContent = isLight ? "Dark" : "Light";
    button.setAttribute("aria-label", `${button.textContent} room`);
  };
  button.addEventListener("click", () => {
    const isLight = document.documentElement.dataset.room !== "light";
    localStorage.setItem(NAME, isLight ? "light" : "dark");
    draw(isLight);
  });
  draw(localStorage.getItem(NAME) === "light");
}
