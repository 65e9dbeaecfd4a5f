// Requests to the service. Addresses are relative, so that the page also works under a proxy's prefix.

/**
 * The parameters of `/predict`, by their names.
 *
 * @typedef {object} PredictionRequest
 * @property {string} model
 * @property {string} operating_point
 * @property {boolean} tta
 * @property {string} prevalence a number as text, or empty; so are the next three
 * @property {string} age_years
 * @property {string} sex
 * @property {string} view_position
 */

/**
 * A 200 of `/predict`.
 *
 * @typedef {object} Prediction
 * @property {string} request_id
 * @property {{name: string, version: number, sha256: string, engine: string, precision: string}} model
 * @property {string} finding
 * @property {number} probability
 * @property {string} label
 * @property {number} threshold
 * @property {string} operating_point
 * @property {{age_years: number | null, sex: string | null, view_position: string | null, source: Record<string, string | null>}} metadata
 * @property {{views: number, spread: number} | null} tta
 * @property {{score: number, limit: number, is_novel: boolean}} novelty
 * @property {{code: string, detail: string}[]} warnings
 * @property {{format: string, transfer_syntax: string | null, rows: number, columns: number, inverted: boolean, intensity: string, orientation: string, preprocess: string}} processing
 * @property {{media_type: string, data: string} | null} heatmap
 * @property {{decode: number, queue: number, run: number, total: number}} timings_ms
 */

/**
 * What was measured at one operating point; null if the data could not tell.
 *
 * @typedef {object} PointFigures
 * @property {number | null} [sensitivity]
 * @property {[number, number] | null} [sensitivity_ci95]
 * @property {number | null} [specificity]
 * @property {[number, number] | null} [specificity_ci95]
 * @property {string} [criterion]
 * @property {boolean} [proven]
 */

/**
 * @typedef {object} Figures
 * @property {number} [n]
 * @property {number} [n_positive]
 * @property {number | null} [auroc]
 * @property {[number, number] | null} [auroc_ci95]
 * @property {string} [basis]
 * @property {Record<string, PointFigures>} [operating_points]
 * @property {Figures} [tta]
 */

/**
 * @typedef {object} CurrentModel
 * @property {{name: string, version: number, sha256: string}} identity
 * @property {string} finding
 * @property {{negative: string, positive: string}} labels
 * @property {Record<string, number>} operating_points
 * @property {Record<string, number>} operating_points_tta
 * @property {string} default_operating_point
 * @property {number | null} training_prevalence null if there is nothing to shift from
 * @property {string} intended_use
 * @property {string} limits
 * @property {Figures} metrics
 */

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {CurrentModel | null} current null if no version is good
 * @property {{version: number, state: string, reason: string | null}[]} versions
 */

const MAX_TRIES = 4;
const MAX_WAIT_S = 30;

/** Name under which this tab keeps the reader's API key until it is closed. */
const KEY_NAME = "cxr-serve-key";

/** The API key that every request carries; empty if none was given. */
export const apiKey = () => sessionStorage.getItem(KEY_NAME) ?? "";

/** Keep an API key for this tab, or forget it. @param {string} key */
export function keepApiKey(key) {
  if (key) sessionStorage.setItem(KEY_NAME, key);
  else sessionStorage.removeItem(KEY_NAME);
}

/** A problem document (RFC 9457), or the lack of an answer. */
export class Problem extends Error {
  /** @param {{code: string, title: string, detail: string, status?: number, request_id?: string, retry_after_s?: number}} document */
  constructor(document) {
    super(document.title);
    this.code = document.code;
    this.title = document.title;
    this.detail = document.detail;
    this.status = document.status ?? 0;
    this.request_id = document.request_id ?? "";
    this.retry_after_s = document.retry_after_s ?? 0;
  }

  /** The members of the problem document, for a download. */
  toJSON() {
    const { code, title, detail, status, request_id } = this;
    return { code, title, detail, status, request_id };
  }
}

/**
 * Read what is served.
 *
 * @returns {Promise<{default: string, models: Model[]}>}
 */
export async function readModels() {
  const response = await fetchFrom("models", "application/json");
  return response.json();
}

/**
 * Read a model's card, as a page.
 *
 * @param {string} name
 * @returns {Promise<Blob>}
 */
export async function readCard(name) {
  const response = await fetchFrom(`models/${encodeURIComponent(name)}/card`, "text/html");
  return response.blob();
}

/**
 * Predict one file. If the service is busy, wait as long as it says and try again.
 *
 * @param {Blob} file
 * @param {PredictionRequest} request
 * @param {{onProgress: (share: number) => void, onWait: (seconds: number) => void}} listener `share` is what was sent, 0 to 1
 * @returns {Promise<Prediction>} rejects with a `Problem`
 */
export function predict(file, request, listener) {
  return patiently(() => send(file, request, listener.onProgress), listener.onWait);
}

/**
 * Have the service draw a file that browsers can't open.
 *
 * @param {Blob} file
 * @returns {Promise<Blob>} a PNG; rejects with a `Problem`
 */
export function preview(file) {
  return patiently(() => fetchFrom("preview", "image/png", file)).then((response) => response.blob());
}

/**
 * Get the answer about a DICOM file as a DICOM object of its study.
 *
 * @param {Blob} file
 * @param {PredictionRequest} request as it was answered
 * @param {"sr" | "sc"} result
 * @returns {Promise<Blob>} rejects with a `Problem`
 */
export function predictDicom(file, request, result) {
  const address = `predict/dicom?${query(request, { result })}`;
  return patiently(() => fetchFrom(address, "application/dicom", file)).then((response) => response.blob());
}

/**
 * Try again if the service says when.
 *
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {(seconds: number) => void} onWait
 * @returns {Promise<T>}
 */
async function patiently(attempt, onWait = () => {}) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.retry_after_s || tries === MAX_TRIES) throw problem;
      const seconds = Math.min(problem.retry_after_s, MAX_WAIT_S);
      onWait(seconds);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  }
}

/**
 * Fetch from the service; a file is sent as the body itself, without its name.
 *
 * @param {string} address
 * @param {string} accept
 * @param {Blob} [file]
 * @returns {Promise<Response>} a success; rejects with a `Problem`
 */
async function fetchFrom(address, accept, file) {
  const body = file ? { method: "POST", body: file } : {};
  const headers = { accept, ...(file ? { "content-type": "application/octet-stream" } : {}), ...credentials() };
  const response = await fetch(address, { ...body, headers }).catch(() => {
    throw unreachable();
  });
  if (!response.ok) throw readProblem(response.status, await response.text(), response.headers.get("retry-after"));
  return response;
}

/** @returns {Record<string, string>} */
const credentials = () => (apiKey() ? { authorization: `Bearer ${apiKey()}` } : {});

/**
 * Send one file as the body itself, without its name. XMLHttpRequest, because fetch reports no progress of an upload.
 *
 * @param {Blob} file
 * @param {PredictionRequest} request
 * @param {(share: number) => void} onProgress
 * @returns {Promise<Prediction>}
 */
function send(file, request, onProgress) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    http.open("POST", `predict?${query(request, { heatmap: "true" })}`);
    const headers = { accept: "application/json", "content-type": "application/octet-stream", ...credentials() };
    for (const [name, value] of Object.entries(headers)) http.setRequestHeader(name, value);
    http.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : 0);
    http.upload.onload = () => onProgress(1);
    http.onerror = () => reject(unreachable());
    http.onload = () => {
      if (http.status === 200) resolve(JSON.parse(http.responseText));
      else reject(readProblem(http.status, http.responseText, http.getResponseHeader("retry-after")));
    };
    http.send(file);
  });
}

/**
 * Write the query; what is not chosen is not sent.
 *
 * @param {PredictionRequest} request
 * @param {Record<string, string>} more
 * @returns {URLSearchParams}
 */
function query(request, more) {
  const chosen = Object.entries({ ...request, tta: String(request.tta), ...more });
  return new URLSearchParams(chosen.filter(([, value]) => value !== ""));
}

/**
 * @param {number} status
 * @param {string} text
 * @param {string | null} retryAfter
 */
function readProblem(status, text, retryAfter) {
  const retry_after_s = Number(retryAfter) || 0;
  try {
    return new Problem({ ...JSON.parse(text), status, retry_after_s });
  } catch { // a proxy may have answered instead of the service
    return new Problem({ code: `http_${status}`, title: `The answer was status ${status}`, detail: "Something between this page and the service answered.", status, retry_after_s });
  }
}

function unreachable() {
  return new Problem({ code: "unreachable", title: "The service did not answer", detail: "The connection was refused or interrupted." });
}
