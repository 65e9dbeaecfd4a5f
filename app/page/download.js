// Save results as files. The page writes CSV and JSON itself; the service writes DICOM objects.

import { predictDicom } from "./api.js";

/** @typedef {import("./worklist.js").Entry} Entry */
/** @typedef {import("./api.js").Prediction} Prediction */
/** @typedef {import("./api.js").PredictionRequest} PredictionRequest */

/** Columns of the CSV: name, and value of a prediction. @type {[string, (prediction: Prediction, request: PredictionRequest) => unknown][]} */
const COLUMNS = [
  ["finding", ({ finding }) => finding],
  ["probability", ({ probability }) => probability],
  ["label", ({ label }) => label],
  ["threshold", ({ threshold }) => threshold],
  ["operating_point", ({ operating_point }) => operating_point],
  ["prevalence", (_, { prevalence }) => prevalence],
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
  const lines = finished(entries).map(({ file, request, prediction, problem }) => [
    file.name,
    ...COLUMNS.map(([, value]) => (prediction ? value(prediction, request) : "")),
    problem?.code,
    problem?.detail,
  ]);
  return [head, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/**
 * Write the answers in the form of `/predict/batch`, without the heat maps.
 *
 * @param {Entry[]} entries
 */
export function asJson(entries) {
  const results = finished(entries).map(({ file, prediction, problem }) =>
    prediction ? { filename: file.name, prediction } : { filename: file.name, problem },
  );
  return `${JSON.stringify({ results }, null, 2)}\n`;
}

/** @param {string} name @param {string} mediaType @param {string} text */
export const saveText = (name, mediaType, text) => save(name, new Blob([text], { type: mediaType }));

/**
 * Save the answer about a file as a DICOM object, under a name like the file's own.
 *
 * @param {File} file
 * @param {PredictionRequest} request
 * @param {"sr" | "sc"} result
 */
export async function saveDicom(file, request, result) {
  save(`${file.name.replace(/\.dcm$/i, "")}-${result}.dcm`, await predictDicom(file, request, result));
}

/** @param {string} name @param {Blob} content */
function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {Entry[]} entries */
const finished = (entries) => entries.filter(({ prediction, problem }) => prediction || problem);

/**
 * Write one value. A spreadsheet would run a text that begins like a formula, so a quote comes before it.
 *
 * @param {unknown} value
 */
function cell(value) {
  const text = String(value ?? "");
  const tame = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(tame) ? `"${tame.replaceAll('"', '""')}"` : tame;
}
