// Write the results as CSV and JSON, in the browser; nothing is sent for it.

/** @typedef {import("./worklist.js").Entry} Entry */
/** @typedef {import("./api.js").Prediction} Prediction */

/** Columns of the CSV: name, and value of a prediction. @type {[string, (prediction: Prediction) => unknown][]} */
const COLUMNS = [
  ["finding", ({ finding }) => finding],
  ["probability", ({ probability }) => probability],
  ["label", ({ label }) => label],
  ["threshold", ({ threshold }) => threshold],
  ["operating_point", ({ operating_point }) => operating_point],
  ["age_years", ({ metadata }) => metadata.age_years],
  ["sex", ({ metadata }) => metadata.sex],
  ["view_position", ({ metadata }) => metadata.view_position],
  ["tta_views", ({ tta }) => tta?.views],
  ["tta_spread", ({ tta }) => tta?.spread],
  ["novelty_score", ({ novelty }) => novelty.score],
  ["novelty_limit", ({ novelty }) => novelty.limit],
  ["is_novel", ({ novelty }) => novelty.is_novel],
  ["warnings", ({ warnings }) => warnings.map(({ code }) => code).join(" ")],
  ["format", ({ processing }) => processing.format],
  ["rows", ({ processing }) => processing.rows],
  ["columns", ({ processing }) => processing.columns],
  ["model", ({ model }) => model.name],
  ["version", ({ model }) => model.version],
  ["sha256", ({ model }) => model.sha256],
  ["total_ms", ({ timings_ms }) => timings_ms.total],
  ["request_id", ({ request_id }) => request_id],
];

/**
 * Write one line for each file that was answered or refused (RFC 4180).
 *
 * @param {Entry[]} entries
 */
export function asCsv(entries) {
  const head = ["filename", ...COLUMNS.map(([name]) => name), "problem", "problem_detail"];
  const lines = finished(entries).map(({ file, prediction, problem }) => [
    file.name,
    ...COLUMNS.map(([, value]) => (prediction ? value(prediction) : "")),
    problem?.code,
    problem?.detail,
  ]);
  return [head, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/**
 * Write the answers as `/predict/batch` gives them, without the heat maps' pictures.
 *
 * @param {Entry[]} entries
 */
export function asJson(entries) {
  const results = finished(entries).map(({ file, prediction, problem }) =>
    prediction ? { filename: file.name, prediction } : { filename: file.name, problem },
  );
  return `${JSON.stringify({ results }, null, 2)}\n`;
}

/**
 * Hand a text to the reader as a file.
 *
 * @param {string} name
 * @param {string} mediaType
 * @param {string} text
 */
export function save(name, mediaType, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: mediaType }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {Entry[]} entries */
const finished = (entries) => entries.filter(({ prediction, problem }) => prediction || problem);

/**
 * Write one value.  A spreadsheet would run a text that begins like a formula: a file's name may not.
 *
 * @param {unknown} value
 */
function cell(value) {
  const text = String(value ?? "");
  const tame = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(tame) ? `"${tame.replaceAll('"', '""')}"` : tame;
}
