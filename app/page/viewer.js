// Show one radiograph: zoom, move, window and level, and the heat map faded over it.

import { byId, fill } from "./element.js";
import { previewOf, setImage } from "./preview.js";
import { shortFacts } from "./words.js";

/** @typedef {import("./worklist.js").Entry} Entry */

const FULL_WIDTH = 256;
const MIDDLE = 128;
const MAX_ZOOM = 8;
const ZOOM_STEP = 1.25;
/** Share of the viewport that an arrow key moves. */
const MOVE_STEP = 0.1;

/** Grey values of window and level for each pixel that the right button drags. */
const GREYS_PER_PIXEL = 0.5;

const HEATMAP_NOTE = "The heat map shows which regions raised this model's score, on one scale for all images. It does not outline disease. A region without colour may still hold disease.";
const WHOLE_NOTE = "The image without the heat map is not available, so you can't fade or window this one.";

export class Viewer {
  constructor() {
    this._viewport = byId("viewport", HTMLElement);
    this._radiograph = byId("radiograph", HTMLElement);
    this._plain = byId("plain", HTMLImageElement);
    this._overlay = byId("overlay", HTMLImageElement);
    this._fade = byId("fade", HTMLInputElement);
    this._width = byId("width", HTMLInputElement);
    this._level = byId("level", HTMLInputElement);
    this._invert = byId("invert", HTMLButtonElement);
    /** @type {Entry | null} */
    this._entry = null;
    /** @type {Blob | null} */
    this._shownOverlay = null;
    this._place = { zoom: 1, x: 0, y: 0 };
    /** Fade to come back to when the heat map was hidden by its key. */
    this._lastFade = this._fade.value;
    this._listen();
    this._reset();
  }

  /**
   * Show a file's image, or nothing. The fade of the heat map stays as it is.
   *
   * @param {Entry | null} entry
   */
  async show(entry) {
    this._entry = entry;
    setImage(this._plain, null);
    this._setOverlay(entry?.overlay ?? null);
    this._reset();
    await this._showPlain();
  }

  /** Show what is new about the file. */
  refresh() {
    const overlay = this._entry?.overlay ?? null;
    if (overlay !== this._shownOverlay) {
      this._setOverlay(overlay);
      void this._showPlain();
    }
    this._draw();
  }

  /** Show the image under the heat map, once it is available. */
  async _showPlain() {
    const entry = this._entry;
    const plain = entry && (await previewOf(entry, () => this._entry === entry));
    if (this._entry === entry && plain && this._plain.hidden) await this._setPlain(plain);
    else this._draw();
  }

  /** @param {Blob} file */
  async _setPlain(file) {
    setImage(this._plain, file);
    const isDecoded = await this._plain.decode().then(() => true, () => false);
    if (!this._plain.src) return;
    if (!isDecoded) setImage(this._plain, null);
    this._draw();
  }

  /** @param {Blob | null} overlay */
  _setOverlay(overlay) {
    this._shownOverlay = overlay;
    setImage(this._overlay, overlay);
  }

  _reset() {
    this._width.value = String(FULL_WIDTH);
    this._level.value = String(MIDDLE);
    this._invert.setAttribute("aria-pressed", "false");
    this._place = { zoom: 1, x: 0, y: 0 };
    this._draw();
  }

  get _isInverted() {
    return this._invert.getAttribute("aria-pressed") === "true";
  }

  get _isWindowed() {
    return this._isInverted || this._width.value !== String(FULL_WIDTH) || this._level.value !== String(MIDDLE);
  }

  /** Draw everything that was chosen. */
  _draw() {
    const hasPlain = !this._plain.hidden;
    const hasOverlay = !this._overlay.hidden;
    this._radiograph.hidden = !hasPlain && !hasOverlay;
    this._drawEmpty();
    byId("legend", HTMLElement).hidden = !hasOverlay;
    this._drawRadiograph(hasPlain, hasOverlay);
    this._drawWindow();
    this._drawTools(hasPlain, hasOverlay);
    this._drawCorners();
    byId("picture-note", HTMLElement).textContent = [HEATMAP_NOTE, hasOverlay && !hasPlain && !this._entry?.preview && WHOLE_NOTE].filter(Boolean).join(" ");
  }

  /** Say what to do if there is no file, or that a file gave no image. */
  _drawEmpty() {
    const isRefused = Boolean(this._entry?.problem);
    byId("empty", HTMLElement).hidden = !this._radiograph.hidden || (Boolean(this._entry) && !isRefused);
    byId("empty-title", HTMLElement).textContent = isRefused ? "No image of this file" : "Drop a chest radiograph";
    byId("empty-hint", HTMLElement).textContent = isRefused ? "The result says why." : "One file or many; DICOM, PNG or JPEG.";
  }

  /** @param {boolean} hasPlain @param {boolean} hasOverlay */
  _drawRadiograph(hasPlain, hasOverlay) {
    const { zoom, x, y } = this._place;
    const stored = this._entry?.prediction?.processing;
    const ratio = stored ? stored.columns / stored.rows : this._plain.naturalWidth / this._plain.naturalHeight || 1;
    this._radiograph.style.setProperty("--ratio", String(ratio));
    this._radiograph.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    this._radiograph.classList.toggle("is-windowed", this._isWindowed && hasPlain);
    this._viewport.classList.toggle("is-zoomed", zoom > 1);
    this._overlay.style.opacity = hasPlain ? String(Number(this._fade.value) / 100) : "1";
    const name = this._entry?.file.name ?? "";
    this._plain.alt = hasPlain ? `Radiograph ${name}` : "";
    this._overlay.alt = hasOverlay ? `Heat map over radiograph ${name}` : "";
  }

  /** Window and level as a line through the grey values: the level becomes middle grey, and the window's ends become black and white. */
  _drawWindow() {
    const sign = this._isInverted ? -1 : 1;
    const slope = (sign * FULL_WIDTH) / Number(this._width.value);
    const intercept = 0.5 - (slope * Number(this._level.value)) / FULL_WIDTH;
    for (const line of document.querySelectorAll("#window feComponentTransfer > *")) {
      line.setAttribute("slope", String(slope));
      line.setAttribute("intercept", String(intercept));
    }
  }

  /** @param {boolean} hasPlain @param {boolean} hasOverlay */
  _drawTools(hasPlain, hasOverlay) {
    this._fade.disabled = !(hasPlain && hasOverlay);
    byId("fade-value", HTMLElement).textContent = `${hasPlain || !hasOverlay ? this._fade.value : 100} %`;
    for (const control of [this._width, this._level, this._invert]) control.disabled = !hasPlain;
    for (const id of ["zoom-in", "zoom-out", "reset"]) byId(id, HTMLButtonElement).disabled = Boolean(this._radiograph.hidden);
  }

  _drawCorners() {
    const { prediction, problem } = this._entry ?? {};
    const zoom = this._place.zoom === 1 ? "" : `${Math.round(100 * this._place.zoom)} %`;
    const greys = this._isWindowed ? `W ${this._width.value} L ${this._level.value}${this._isInverted ? " inverted" : ""}` : "";
    fill(byId("corner-facts", HTMLElement), prediction ? shortFacts(prediction.metadata) : "");
    fill(byId("corner-state", HTMLElement), prediction ? `${prediction.model.name} ${prediction.model.version}` : problem ? "not read" : this._entry ? "reading" : "");
    fill(byId("corner-window", HTMLElement), [greys, zoom].filter(Boolean).join(" · "));
  }

  /** @param {number} factor */
  _zoom(factor) {
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this._place.zoom * factor));
    const change = zoom / this._place.zoom;
    this._place.zoom = zoom < 1.01 ? 1 : zoom;
    this._move(this._place.x * (change - 1), this._place.y * (change - 1));
  }

  /** Move by pixels, as far as there is radiograph. @param {number} dx @param {number} dy */
  _move(dx, dy) {
    const { zoom, x, y } = this._place;
    const limit = (/** @type {number} */ value, /** @type {number} */ side) => Math.min(1, Math.max(-1, value / (((zoom - 1) * side) / 2 || 1))) * (((zoom - 1) * side) / 2);
    this._place = { zoom, x: limit(x + dx, this._radiograph.offsetWidth), y: limit(y + dy, this._radiograph.offsetHeight) };
    this._draw();
  }

  _toggleInvert() {
    if (this._invert.disabled) return;
    this._invert.setAttribute("aria-pressed", String(!this._isInverted));
    this._draw();
  }

  _toggleHeatmap() {
    if (this._fade.disabled) return;
    const isHidden = this._fade.value === "0";
    if (!isHidden) this._lastFade = this._fade.value;
    this._fade.value = isHidden ? this._lastFade : "0";
    this._draw();
  }

  _listen() {
    for (const slider of [this._fade, this._width, this._level]) slider.addEventListener("input", () => this._draw());
    const clicks = /** @type {[string, () => void][]} */ ([
      ["invert", () => this._toggleInvert()],
      ["zoom-in", () => this._zoom(ZOOM_STEP)],
      ["zoom-out", () => this._zoom(1 / ZOOM_STEP)],
      ["reset", () => this._reset()],
    ]);
    for (const [id, act] of clicks) byId(id, HTMLButtonElement).addEventListener("click", act);
    this._viewport.addEventListener("keydown", (event) => this._onKey(event));
    this._viewport.addEventListener("wheel", (event) => this._onWheel(event), { passive: false });
    this._viewport.addEventListener("contextmenu", (event) => !this._width.disabled && event.preventDefault());
    this._viewport.addEventListener("pointerdown", (event) => this._onPointerDown(event));
    this._viewport.addEventListener("dblclick", () => (this._place.zoom > 1 ? this._zoom(1 / MAX_ZOOM) : this._zoom(2)));
  }

  /** @param {KeyboardEvent} event */
  _onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this._radiograph.hidden) return;
    const step = MOVE_STEP * this._viewport.clientWidth;
    const act = /** @type {Record<string, () => void>} */ ({
      "+": () => this._zoom(ZOOM_STEP),
      "=": () => this._zoom(ZOOM_STEP),
      "-": () => this._zoom(1 / ZOOM_STEP),
      0: () => this._reset(),
      h: () => this._toggleHeatmap(),
      i: () => this._toggleInvert(),
      ArrowLeft: () => this._move(step, 0),
      ArrowRight: () => this._move(-step, 0),
      ArrowUp: () => this._move(0, step),
      ArrowDown: () => this._move(0, -step),
    })[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** The wheel zooms if the image has the focus; otherwise it scrolls the page. @param {WheelEvent} event */
  _onWheel(event) {
    if (this._radiograph.hidden || !(event.ctrlKey || document.activeElement === this._viewport)) return;
    event.preventDefault();
    this._zoom(event.deltaY < 0 ? ZOOM_STEP : 1 / ZOOM_STEP);
  }

  /** The left button moves a zoomed image; the right one changes its window. @param {PointerEvent} start */
  _onPointerDown(start) {
    if (start.button === 2 && !this._width.disabled) this._dragWindow(start);
    if (start.button === 0 && this._place.zoom > 1) this._dragRadiograph(start);
  }

  /** @param {PointerEvent} start */
  _dragRadiograph(start) {
    let { clientX, clientY } = start;
    this._follow(start, (event) => {
      this._move(event.clientX - clientX, event.clientY - clientY);
      ({ clientX, clientY } = event);
    });
  }

  /** Drag the window wider and the level up, as viewers of archives do. @param {PointerEvent} start */
  _dragWindow(start) {
    const [width, level] = [this._width.valueAsNumber, this._level.valueAsNumber];
    this._follow(start, (event) => {
      this._width.valueAsNumber = width + (event.clientX - start.clientX) * GREYS_PER_PIXEL;
      this._level.valueAsNumber = level + (event.clientY - start.clientY) * GREYS_PER_PIXEL;
      this._draw();
    });
  }

  /** @param {PointerEvent} start @param {(event: PointerEvent) => void} onMove */
  _follow(start, onMove) {
    this._viewport.setPointerCapture(start.pointerId);
    this._viewport.addEventListener("pointermove", onMove);
    for (const end of ["pointerup", "pointercancel"]) {
      this._viewport.addEventListener(end, () => this._viewport.removeEventListener("pointermove", onMove), { once: true });
    }
  }
}
