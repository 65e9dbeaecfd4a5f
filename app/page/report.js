// The report about one file: the finding first, then what limits it, then everything else.

import { apiKey, Problem, readCard } from "./api.js";
import { saveDicom } from "./download.js";
import { element, fill } from "./element.js";
import { figuresAt } from "./options.js";
import * as words from "./words.js";
import { isOver, isPositive, nameParts, outcome } from "./worklist.js";

/** @typedef {import("./api.js").CurrentModel} CurrentModel */
/** @typedef {import("./api.js").Prediction} Prediction */
/** @typedef {import("./worklist.js").Entry} Entry */

/**
 * Write the report of a file, or how to begin.
 *
 * @param {HTMLElement} place
 * @param {Entry | null} entry
 * @param {CurrentModel | null} model the model that answered, if it is known
 */
export function writeReport(place, entry, model) {
  if (!entry) fill(place, ...introduction());
  else if (entry.problem) fill(place, fileName(entry), problemReport(entry.problem));
  else if (entry.prediction) fill(place, fileName(entry), ...findingReport(entry, entry.prediction, model));
  else fill(place, fileName(entry), element("p", { class: "pending" }, outcome(entry)));
}

/** Return the outcome of a file in one line, for screen readers. @param {Entry} entry */
export function announcement(entry) {
  if (!isOver(entry)) return "";
  const warnings = entry.prediction?.warnings.length;
  return `${entry.file.name}: ${outcome(entry)}${warnings ? `, ${warnings} ${warnings === 1 ? "warning" : "warnings"}` : ""}.`;
}

function introduction() {
  return [
    element("p", { class: "lead" }, "A model reads the radiograph and answers with a calibrated probability. How often it is right was measured on radiographs that it had not seen."),
    element("ul", { class: "promises" },
      element("li", {}, "The probability is shown with its threshold, and with how often the model is right at that threshold."),
      element("li", {}, "Warnings tell you if the image is outside what the model was made for."),
      element("li", {}, "A heat map shows which regions raised the score."),
    ),
    element("p", { class: "note" }, "This is not a medical device. The model looks for one finding, and says nothing about any other."),
  ];
}

/** @param {Entry} entry */
const fileName = ({ file }) => element("p", { class: "file-name" }, ...nameParts(file.name));

/** @param {Problem} problem */
function problemReport(problem) {
  return element("section", { class: "problem" },
    element("h3", {}, problem.title),
    element("p", {}, problem.detail),
    element("p", { class: "advice" }, words.advice(problem.code)),
    element("p", { class: "note" }, [problem.code, problem.request_id && `request ${problem.request_id}`].filter(Boolean).join(" · ")),
  );
}

/** @param {Entry} entry @param {Prediction} prediction @param {CurrentModel | null} model */
function findingReport(entry, prediction, model) {
  const { prevalence } = entry.request;
  return [
    verdict(prediction),
    pointReport(prediction, model, prevalence && words.prevalenceSentence(prevalence, model)),
    prediction.warnings.length ? warningsReport(prediction.warnings) : null,
    section("Patient and view", factsTable(prediction.metadata)),
    section("How far to trust it", stability(prediction)),
    section("Model", modelReport(prediction, model)),
    section("Pixels", element("p", {}, words.pixelSentence(prediction.processing))),
    prediction.processing.format === "dicom" ? section("For the archive", archive(entry)) : null,
    section("Time", element("p", { class: "figures" }, timeSentence(prediction.timings_ms))),
    element("p", { class: "note" }, `request ${prediction.request_id}`),
  ];
}

/** @param {Prediction} prediction */
function verdict(prediction) {
  const positive = isPositive(prediction);
  const decimals = words.tellingDecimals(prediction);
  const probability = words.percent(prediction.probability, decimals);
  return element("section", { class: `verdict ${positive ? "positive" : "negative"}` },
    element("h3", {}, `Probability of ${prediction.finding}`),
    element("p", { class: "probability" }, probability),
    probabilityBar(prediction, probability, words.percent(prediction.threshold, decimals)),
    element("p", { class: "label" }, words.labelSentence(prediction, positive)),
  );
}

/** @param {Prediction} prediction @param {string} probability @param {string} threshold */
function probabilityBar(prediction, probability, threshold) {
  const bar = element("div", {
    class: "bar", role: "meter", "aria-label": `Probability of ${prediction.finding}`,
    "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": prediction.probability, "aria-valuetext": `${probability}, threshold ${threshold}`,
  }, element("span", { class: "filled" }), element("span", { class: "mark" }), element("span", { class: "mark-text" }, `threshold ${threshold}`));
  bar.style.setProperty("--probability", String(prediction.probability));
  bar.style.setProperty("--threshold", String(prediction.threshold));
  bar.classList.toggle("is-high", prediction.threshold > 0.5);
  return bar;
}

/** @param {Prediction} prediction @param {CurrentModel | null} model @param {string} shift how the answer was shifted, or nothing */
function pointReport(prediction, model, shift) {
  const title = element("h3", {}, `Operating point: ${words.pointTitle(prediction.operating_point)}`);
  const figures = model && figuresAt(model, prediction.operating_point, prediction.tta !== null);
  const sentences = model && figures ? words.pointSentences(figures, model.labels) : [];
  const how = [figures?.criterion && `Chosen by: ${figures.criterion}.`, model?.metrics.basis && `Measured on ${model.metrics.basis}`].filter(Boolean);
  const chance = words.chanceSentence(model?.metrics);
  return element("section", {}, title, chance ? element("p", { class: "alarm" }, chance) : null, ...sentences.map((text) => element("p", {}, text)),
    shift ? element("p", {}, shift) : null,
    how.length ? element("details", {}, element("summary", {}, "How this was chosen and measured"), ...how.map((text) => element("p", {}, text))) : null,
  );
}

/** @param {Prediction["warnings"]} warnings */
function warningsReport(warnings) {
  const items = warnings.map(({ code, detail }) => element("li", {}, element("strong", {}, words.warningTitle(code)), element("span", {}, detail)));
  return element("section", { class: "warnings" }, element("h3", {}, warnings.length === 1 ? "Warning" : `${warnings.length} warnings`), element("ul", {}, ...items));
}

/** @param {Prediction["metadata"]} metadata */
function factsTable({ age_years, sex, view_position, source }) {
  const rows = [
    ["Age", words.age(age_years), source.age_years],
    ["Sex", words.sex(sex), source.sex],
    ["View", words.view(view_position), source.view_position],
  ];
  return element("table", { class: "facts-table" }, element("tbody", {}, ...rows.map(([name, value, origin]) =>
    element("tr", { class: origin ? null : "unstated" }, element("th", { scope: "row" }, name), element("td", {}, value), element("td", { class: "source" }, words.sourceOf(origin ?? null))),
  )));
}

/** @param {Prediction} prediction */
function stability(prediction) {
  const { tta, novelty } = prediction;
  return element("div", {},
    element("p", { class: novelty.is_novel ? "alarm" : null }, words.noveltySentence(novelty)),
    element("p", {}, tta ? words.ttaSentence(tta, prediction) : "Only one view of the image was read. Test-time augmentation (TTA) would show how stable the answer is."),
  );
}

/** @param {Prediction} prediction @param {CurrentModel | null} model */
function modelReport({ model: identity }, model) {
  const card = element("a", { href: `models/${encodeURIComponent(identity.name)}/card`, target: "_blank", rel: "noopener" }, "Model card");
  card.addEventListener("click", (event) => openCard(event, identity.name));
  return element("div", {},
    element("p", {}, `${identity.name}, version ${identity.version} `, element("code", { title: identity.sha256 }, identity.sha256.slice(0, 12))),
    element("p", { class: "note" }, `${identity.engine}, ${identity.precision}`),
    model?.limits ? element("p", {}, model.limits) : null,
    element("p", {}, card),
  );
}

/** Open a model's card with the API key, because a link can't carry one. @param {MouseEvent} event @param {string} name */
async function openCard(event, name) {
  if (!apiKey()) return;
  event.preventDefault();
  const tab = window.open("about:blank");
  const card = await readCard(name).catch(() => null);
  if (card) tab?.location.replace(URL.createObjectURL(card));
  else tab?.close();
}

/** Offer the answer as DICOM objects of the file's study. @param {Entry} entry */
function archive(entry) {
  const said = element("p", { class: "note", role: "status" });
  const button = (/** @type {"sr" | "sc"} */ result, /** @type {string} */ title) => {
    const made = element("button", { type: "button", class: "button" }, title);
    made.addEventListener("click", async () => {
      said.textContent = "Saving.";
      const failure = await saveDicom(entry.file, entry.request, result).catch((error) => error);
      said.textContent = !failure ? "Saved." : failure instanceof Problem ? `${failure.title}. ${failure.detail}` : String(failure);
    });
    return made;
  };
  return element("div", { class: "archive" },
    element("p", {}, "The answer as DICOM objects of the same study: preliminary and unverified."),
    element("div", { class: "buttons" }, button("sr", "Structured report"), button("sc", "Image with heat map")),
    said,
  );
}

/** @param {Prediction["timings_ms"]} timings */
function timeSentence({ decode, queue, run, total }) {
  const ms = (/** @type {number} */ value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  return `${ms(total)} in the service: decoding ${ms(decode)}, waiting ${ms(queue)}, model ${ms(run)}.`;
}

/** @param {string} title @param {Node} content */
const section = (title, content) => element("section", {}, element("h3", {}, title), content);
