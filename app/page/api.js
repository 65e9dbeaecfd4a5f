// Speak with the service.  Addresses are relative, so that the page also works under a proxy's prefix.

/**
 * What `/predict` is asked, in its parameters' names.
 *
 * @typedef {object} Question
 * @property {string} model
 * @property {string} operating_point
 * @property {boolean} tta
 * @property {string} age_years a number as text, or empty, as the next two
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
 * @property {{format: string, transfer_syntax: string | null, rows: number, columns: number, inverted: boolean, intensity: string, preprocess: string}} processing
 * @property {{media_type: string, data: string} | null} heatmap
 * @property {{decode: number, queue: number, run: number, total: number}} timings_ms
 */

/**
 * What was measured at one operating point; null where the data could not tell.
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
 * @property {string} intended_use
 * @property {string} limits
 * @property {Figures} metrics
 */

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {CurrentModel | null} current null where no version is good
 * @property {{version: number, state: string, reason: string | null}[]} versions
 */

const MAX_TRIES = 4;
const MAX_WAIT_S = 30;

/** An answer that is no success (RFC 9457), or that never came. */
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
  let response;
  try {
    response = await fetch("models", { headers: { accept: "application/json" } });
  } catch {
    throw unreachable();
  }
  const text = await response.text();
  if (!response.ok) throw readProblem(response.status, text, null);
  return JSON.parse(text);
}

/**
 * Ask about one file; where the service is busy, wait as long as it says and ask again.
 *
 * @param {Blob} file
 * @param {Question} question
 * @param {{onProgress: (share: number) => void, onWait: (seconds: number) => void}} listener `share` is what was sent, 0 to 1
 * @returns {Promise<Prediction>} rejects with a `Problem`
 */
export async function predict(file, question, listener) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await send(file, question, listener.onProgress);
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.retry_after_s || tries === MAX_TRIES) throw problem;
      const seconds = Math.min(problem.retry_after_s, MAX_WAIT_S);
      listener.onWait(seconds);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  }
}

/**
 * Send one file as the body itself: its name stays here.  XMLHttpRequest, since fetch tells nothing of what was sent.
 *
 * @param {Blob} file
 * @param {Question} question
 * @param {(share: number) => void} onProgress
 * @returns {Promise<Prediction>}
 */
function send(file, question, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `predict?${query(question)}`);
    request.setRequestHeader("accept", "application/json");
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : 0);
    request.upload.onload = () => onProgress(1);
    request.onerror = () => reject(unreachable());
    request.onload = () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(readProblem(request.status, request.responseText, request.getResponseHeader("retry-after")));
    };
    request.send(file);
  });
}

/**
 * Write the query; what is not chosen is not sent.
 *
 * @param {Question} question
 * @returns {URLSearchParams}
 */
function query(question) {
  const chosen = Object.entries({ ...question, tta: String(question.tta), heatmap: "true" });
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
  } catch { // a proxy between us and the service may answer in its own words
    return new Problem({ code: `http_${status}`, title: `The answer was status ${status}`, detail: "It was not the service's own answer.", status, retry_after_s });
  }
}

function unreachable() {
  return new Problem({ code: "unreachable", title: "The service did not answer", detail: "The connection was refused or broke off." });
}
