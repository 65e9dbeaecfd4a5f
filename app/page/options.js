// The options of the next requests: model, operating point, views, and what files may not state.

import { Problem, readModels } from "./api.js";
import { byId, element } from "./element.js";
import { advice, percent, pointSentences, pointTitle, prevalenceNote, shifted } from "./words.js";

/** @typedef {import("./api.js").CurrentModel} CurrentModel */
/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./api.js").PredictionRequest} PredictionRequest */

export class Options {
  constructor() {
    /** @type {Model[]} */
    this._models = [];
    this._form = byId("options", HTMLFormElement);
    this._model = byId("model", HTMLSelectElement);
    this._point = byId("operating-point", HTMLSelectElement);
    this._tta = byId("tta", HTMLInputElement);
    this._prevalence = byId("prevalence", HTMLInputElement);
    this._fault = byId("service-fault", HTMLElement);
    this._model.addEventListener("change", () => this._showPoints());
    this._form.addEventListener("input", () => this._showNotes());
    this._form.addEventListener("submit", (event) => event.preventDefault());
  }

  /**
   * Read what is served and fill the choices. If that fails, say so and use the service's defaults.
   *
   * @returns {Promise<Problem | null>} why it failed
   */
  async load() {
    try {
      const served = await readModels();
      this._models = served.models;
      this._showModels(served.default);
      this._fault.hidden = true;
      return null;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this._fault.textContent = `${error.title}. ${error.detail} ${advice(error.code)}`;
      this._fault.hidden = false;
      return error;
    }
  }

  /** Whether the models were read. */
  get isLoaded() {
    return this._models.length > 0;
  }

  /** What the reader has chosen. @returns {PredictionRequest} */
  get request() {
    const chosen = new FormData(this._form);
    const text = (/** @type {string} */ name) => String(chosen.get(name) ?? "");
    return {
      model: text("model"),
      operating_point: text("operating_point"),
      tta: this._tta.checked,
      prevalence: share(text("prevalence")),
      age_years: text("age_years"),
      sex: text("sex"),
      view_position: text("view_position"),
    };
  }

  /** Return what is known of a model that answered; null if another version is served now. @param {{name: string, sha256: string}} identity */
  describe(identity) {
    const current = this._models.find(({ name }) => name === identity.name)?.current;
    return current?.identity.sha256 === identity.sha256 ? current : null;
  }

  /** Call when a choice has changed. @param {() => void} listener */
  onChange(listener) {
    for (const kind of ["change", "input"]) this._form.addEventListener(kind, listener);
  }

  /** @param {string} byDefault */
  _showModels(byDefault) {
    const chosen = this._model.value || byDefault;
    this._model.replaceChildren(
      ...this._models.map(({ name, current }) =>
        element("option", { value: name, disabled: !current }, current ? `${name}, version ${current.identity.version}` : `${name} (not served)`),
      ),
    );
    this._model.value = chosen;
    this._showPoints();
  }

  _showPoints() {
    const current = this._chosen();
    const kept = this._point.value;
    const names = Object.keys(current?.operating_points ?? {});
    this._point.replaceChildren(...names.map((name) => element("option", { value: name }, pointTitle(name))));
    this._point.value = names.includes(kept) ? kept : (current?.default_operating_point ?? "");
    this._showNotes();
  }

  _showNotes() {
    const current = this._chosen();
    byId("model-note", HTMLElement).textContent = current?.intended_use ?? this._refusal();
    byId("point-note", HTMLElement).textContent = current ? this._pointNote(current) : "";
    this._prevalence.disabled = Boolean(current) && current?.training_prevalence === null;
    byId("prevalence-note", HTMLElement).textContent = current ? prevalenceNote(current) : "";
    byId("options-brief", HTMLElement).textContent = this._brief();
  }

  /** Sum up the choices, for the closed form. */
  _brief() {
    const { operating_point, tta, prevalence, age_years, sex, view_position } = this.request;
    const point = operating_point && pointTitle(operating_point).split(":")[0];
    return [point, tta && "TTA", prevalence && `prevalence ${this._prevalence.value} %`, age_years && `${age_years} years`, sex, view_position].filter(Boolean).join(" · ");
  }

  /** @param {CurrentModel} current */
  _pointNote(current) {
    const thresholds = this._tta.checked ? current.operating_points_tta : current.operating_points;
    const threshold = shifted(thresholds[this._point.value], Number(this.request.prevalence), current.training_prevalence);
    const figures = figuresAt(current, this._point.value, this._tta.checked);
    const from = threshold === undefined ? [] : [`Positive at ${percent(threshold)} or more.`];
    return [...from, ...pointSentences(figures, current.labels)].join(" ");
  }

  _chosen() {
    return this._models.find(({ name }) => name === this._model.value)?.current ?? null;
  }

  _refusal() {
    const model = this._models.find(({ name }) => name === this._model.value);
    return model?.versions.find(({ reason }) => reason)?.reason ?? "";
  }
}

/** Return a percentage as the share that the service takes; 7 % is 0.07 and not 0.07000000000000001. @param {string} text */
const share = (text) => (text ? String(Number((Number(text) / 100).toPrecision(12))) : "");

/**
 * Return what was measured at an operating point, with or without test-time augmentation.
 *
 * @param {CurrentModel} current
 * @param {string} point
 * @param {boolean} tta
 */
export function figuresAt(current, point, tta) {
  const figures = tta ? current.metrics.tta : current.metrics;
  return figures?.operating_points?.[point];
}
