// Ask for an API key if the service requires one, and keep it for this tab alone.

import { apiKey, keepApiKey } from "./api.js";
import { byId } from "./element.js";

export class KeyField {
  /** @param {() => void} onKey a key was given, or forgotten */
  constructor(onKey) {
    this._form = byId("key-form", HTMLFormElement);
    this._input = byId("key", HTMLInputElement);
    this._forget = byId("forget-key", HTMLButtonElement);
    this._onKey = onKey;
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._keep(this._input.value.trim());
    });
    this._forget.addEventListener("click", () => this._keep(""));
    this._draw();
  }

  /** Ask for a key: the service refused a request without a key, or with a wrong one. */
  ask() {
    this._form.hidden = false;
  }

  /** @param {string} key */
  _keep(key) {
    keepApiKey(key);
    this._input.value = "";
    this._draw();
    this._onKey();
  }

  _draw() {
    const hasKey = Boolean(apiKey());
    this._form.hidden = !hasKey;
    this._forget.hidden = !hasKey;
    this._input.placeholder = hasKey ? "in use" : "";
  }
}
