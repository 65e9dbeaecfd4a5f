// The list of files: sends them to the service, two at a time, and shows the outcome of each.

import { Problem, predict } from "./api.js";
import { byId, element, fill } from "./element.js";
import { advice, percent } from "./words.js";

/** @typedef {import("./api.js").Prediction} Prediction */
/** @typedef {import("./api.js").PredictionRequest} PredictionRequest */

/**
 * One file and its outcome. The heat map is taken out of the answer and kept as an image file.
 *
 * @typedef {object} Entry
 * @property {File} file
 * @property {PredictionRequest} request the options of its last request
 * @property {"waiting" | "sending" | "reading" | "busy" | "done" | "failed"} state
 * @property {number} sent share of the file that was sent, 0 to 1
 * @property {Prediction | null} prediction
 * @property {Problem | null} problem
 * @property {Blob | null} overlay
 * @property {Promise<Blob | null> | null} preview the service's image of a file that browsers can't open
 * @property {HTMLLIElement} row
 */

/** Requests at once: enough to keep a small service busy, and few enough not to be refused. */
const MAX_AT_ONCE = 2;

/** Characters at a name's end that are never cut off. */
const TAIL_LENGTH = 14;

const STATES = { waiting: "waiting", sending: "sending", reading: "reading", busy: "service busy, trying again", done: "", failed: "" };

export class Worklist {
  /**
   * @param {object} listener
   * @param {(entry: Entry | null) => void} listener.onSelect
   * @param {(entry: Entry) => void} listener.onChange the entry's state, prediction or problem is new
   */
  constructor(listener) {
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {Entry | null} */
    this.selected = null;
    this._listener = listener;
    this._active = 0;
    this._list = byId("worklist", HTMLOListElement);
    this._list.addEventListener("keydown", (event) => this._onKey(event));
  }

  /**
   * Add files, in order. The first one is selected if none was.
   *
   * @param {Iterable<File>} files
   * @param {PredictionRequest} request
   */
  add(files, request) {
    const added = [...files].map((file) => this._makeEntry(file, request));
    this.entries.push(...added);
    this._list.append(...added.map(({ row }) => row));
    this._count();
    if (added[0] && (!this.selected || added.length === 1)) this.select(added[0]);
    this._pump();
  }

  /** Read a file again. @param {Entry} entry @param {PredictionRequest} request */
  again(entry, request) {
    if (!isOver(entry)) return;
    this._update(entry, { request, prediction: null, problem: null, overlay: null, sent: 0, state: "waiting" });
    this._pump();
  }

  /** Forget every file. Answers that are still on their way are dropped. */
  clear() {
    this.entries = [];
    this._list.replaceChildren();
    this._count();
    this.selected = null;
    this._listener.onSelect(null);
  }

  /** @param {Entry} entry */
  select(entry) {
    this.selected = entry;
    for (const other of this.entries) button(other).setAttribute("aria-current", String(other === entry));
    this._listener.onSelect(entry);
  }

  /** @param {File} file @param {PredictionRequest} request @returns {Entry} */
  _makeEntry(file, request) {
    const row = element("li");
    /** @type {Entry} */
    const entry = { file, request, state: "waiting", sent: 0, prediction: null, problem: null, overlay: null, preview: null, row };
    row.append(element("button", { type: "button", class: "entry", "aria-current": "false" }));
    button(entry).addEventListener("click", () => this.select(entry));
    show(entry);
    return entry;
  }

  /** Read as many waiting files as may be read at once. */
  _pump() {
    while (this._active < MAX_AT_ONCE) {
      const next = this.entries.find(({ state }) => state === "waiting");
      if (!next) return;
      this._active += 1;
      this._read(next).finally(() => {
        this._active -= 1;
        this._pump();
      });
    }
  }

  /** @param {Entry} entry */
  async _read(entry) {
    this._update(entry, { state: "sending" });
    try {
      const prediction = await predict(entry.file, entry.request, {
        onProgress: (sent) => this._update(entry, { sent, state: sent < 1 ? "sending" : "reading" }),
        onWait: () => this._update(entry, { sent: 0, state: "busy" }),
      });
      const overlay = prediction.heatmap && decodeImage(prediction.heatmap);
      this._update(entry, { state: "done", prediction: { ...prediction, heatmap: null }, overlay });
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem({ code: "page_fault", title: "The answer could not be shown", detail: String(error) });
      this._update(entry, { state: "failed", problem });
    }
  }

  /** @param {Entry} entry @param {Partial<Entry>} change */
  _update(entry, change) {
    Object.assign(entry, change);
    if (!this.entries.includes(entry)) return;
    show(entry);
    this._count();
    this._listener.onChange(entry);
  }

  _count() {
    const total = this.entries.length;
    const over = this.entries.filter(isOver).length;
    byId("list", HTMLElement).hidden = !total;
    byId("list-count", HTMLElement).textContent = over < total ? `${over} of ${total} read` : `${total} ${total === 1 ? "file" : "files"}`;
    for (const id of ["save-csv", "save-json"]) byId(id, HTMLButtonElement).disabled = !over;
  }

  /** The keys up and down move through the list. @param {KeyboardEvent} event */
  _onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const entry = step && this.entries[this.entries.findIndex((other) => other === this.selected) + step];
    if (!entry) return;
    event.preventDefault();
    this.select(entry);
    button(entry).focus();
  }
}

/** Whether a file has its answer or its problem. @param {Entry} entry */
export const isOver = ({ state }) => state === "done" || state === "failed";

/** Whether an answer is the positive one: exactly then the probability reaches the threshold. @param {Prediction} prediction */
export const isPositive = ({ probability, threshold }) => probability >= threshold;

/** Return the outcome of a file in one line. @param {Entry} entry */
export function outcome({ prediction, problem, state, sent }) {
  if (prediction) return `${prediction.label}, ${percent(prediction.probability)}`;
  if (problem) return problem.title;
  return state === "sending" && sent > 0 ? `sending, ${Math.round(100 * sent)} %` : STATES[state];
}

/** @param {Entry} entry */
const button = ({ row }) => /** @type {HTMLButtonElement} */ (row.firstElementChild);

/** Draw an entry's row anew. @param {Entry} entry */
function show(entry) {
  const { file, prediction, problem, state } = entry;
  const tone = problem ? "problem" : prediction ? (isPositive(prediction) ? "positive" : "negative") : "open";
  const warnings = prediction?.warnings.length ?? 0;
  const bar = isOver(entry) ? null : element("progress", { max: 1, ...(state === "sending" ? { value: entry.sent } : {}), "aria-label": `${file.name}: ${STATES[state]}` });
  fill(
    button(entry),
    element("span", { class: "entry-name", title: file.name }, ...nameParts(file.name)),
    element("span", { class: `entry-outcome ${tone}`, title: problem ? advice(problem.code) : null }, outcome(entry)),
    warnings ? element("span", { class: "entry-warnings" }, `${warnings} ${warnings === 1 ? "warning" : "warnings"}`) : null,
    bar,
  );
}

/** Write a name in two parts. The end always stays visible, because UIDs and numbered files differ there. @param {string} name */
export function nameParts(name) {
  const cut = Math.max(0, name.length - TAIL_LENGTH);
  return [element("span", {}, name.slice(0, cut)), element("span", {}, name.slice(cut))];
}

/** @param {{media_type: string, data: string}} image in base64 */
function decodeImage({ media_type, data }) {
  return new Blob([Uint8Array.from(atob(data), (character) => character.charCodeAt(0))], { type: media_type });
}
