// Plain words for the codes and numbers of the service.

/** @typedef {import("./api.js").Prediction} Prediction */
/** @typedef {import("./api.js").Figures} Figures */
/** @typedef {import("./api.js").PointFigures} PointFigures */
/** @typedef {import("./api.js").CurrentModel} CurrentModel */

const NOT_STATED = "not stated";

/** Below this lower bound of the AUROC the page warns, as the model card does. Chance is 0.5. */
const NEAR_CHANCE = 0.7;

/** Titles of the warnings. The service's own sentence follows each. */
const WARNINGS = /** @type {Record<string, string>} */ ({
  age_missing: "Age not stated",
  age_implausible: "Age is impossible",
  age_unit_assumed: "Unit of the age was assumed",
  sex_unreadable: "Sex not readable",
  view_missing: "View not stated",
  outside_age_scope: "Outside the model's age range",
  outside_sex_scope: "Outside the sex the model was made for",
  outside_view_scope: "Outside the views the model was made for",
  modality_unusual: "Unusual modality",
  body_part_unstated: "Body part not stated",
  not_a_chest: "Not a chest",
  not_frontal: "Not a frontal view",
  intensity_guessed: "Grey scale was guessed",
  polarity_contradiction: "The header contradicts itself",
  color_input: "Colour image",
  aspect_unusual: "Unusual aspect ratio",
  low_resolution: "Low resolution",
  few_greys: "Few grey values",
  looks_inverted: "Black and white may be inverted",
  looks_unlike_a_chest: "Does not look like a chest",
  novel_input: "Unlike the training images",
  header_repaired: "Header was repaired",
  reoriented: "Turned or mirrored to upright",
  orientation_contradiction: "Orientation not clear",
  looks_damaged: "The file may be damaged",
  looks_sheared: "Rows and columns may be exchanged",
});

/** What to do about each problem. The service's own sentence comes first. */
const ADVICE = /** @type {Record<string, string>} */ ({
  malformed_request: "Check the choices under How to read, and check that the file is not empty.",
  unauthorized: "Enter the API key that you were given for this service, then read the file again.",
  unknown_model: "Reload the page: the models may have changed.",
  slow_client: "The connection was too slow. Try again, one file at a time.",
  too_large: "Export the image at a smaller size, or ask the operator of the service to raise its limit.",
  unsupported_format: "Export the image as DICOM, PNG or JPEG. A DICOM file must begin with its preamble.",
  corrupt_image: "Export or copy the file again: part of it is missing or damaged.",
  not_a_radiograph: "Choose a single-frame plain radiograph (CR or DX).",
  not_a_chest: "Choose a chest radiograph. If it is one, its header names the wrong body part.",
  not_frontal: "Choose the PA or AP view of this study.",
  decode_limit: "The file took too long or too much memory to open. Export it without compression.",
  forbidden: "Open this page at the service's own address, then read the file again.",
  misdirected_request: "Open this page at the address that the operator of the service gave you.",
  rate_limited: "Wait a little, then read it again.",
  overloaded: "The service is busy. Wait a little, then read it again.",
  not_ready: "This model is not served now. Wait a little, choose another, or ask the operator of the service.",
  deadline_exceeded: "The service was too slow this time. Read it again.",
  inference_failed: "Read it again. If it fails again, report the request id below.",
  unreachable: "Check that the service runs and that this computer can reach it. Then read the file again.",
});

const OPERATING_POINTS = /** @type {Record<string, string>} */ ({
  balanced: "Balanced",
  youden: "Youden",
  screen: "Screening: few misses",
  rule_in: "Rule in: few false alarms",
});

const TRANSFER_SYNTAXES = /** @type {Record<string, string>} */ ({
  "1.2.840.10008.1.2": "uncompressed, implicit VR",
  "1.2.840.10008.1.2.1": "uncompressed",
  "1.2.840.10008.1.2.1.99": "deflated",
  "1.2.840.10008.1.2.2": "uncompressed, big endian",
  "1.2.840.10008.1.2.4.50": "JPEG baseline",
  "1.2.840.10008.1.2.4.51": "JPEG extended",
  "1.2.840.10008.1.2.4.57": "JPEG lossless",
  "1.2.840.10008.1.2.4.70": "JPEG lossless",
  "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
  "1.2.840.10008.1.2.4.81": "JPEG-LS",
  "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
  "1.2.840.10008.1.2.4.91": "JPEG 2000",
  "1.2.840.10008.1.2.5": "RLE",
});

const INTENSITIES = /** @type {Record<string, string>} */ ({
  identity: "grey values as stored",
  window: "windowed as the file says",
  lut: "grey scale by the file's table",
  percentile: "grey scale guessed from its values",
});

const ORIENTATIONS = /** @type {Record<string, string>} */ ({
  as_stored: "not turned",
  mirrored: "mirrored",
  rotated_180: "turned by 180 degrees",
  flipped: "flipped upside down",
  transposed: "mirrored and turned by 270 degrees clockwise",
  rotated_90: "turned by 90 degrees clockwise",
  transversed: "mirrored and turned by 90 degrees clockwise",
  rotated_270: "turned by 270 degrees clockwise",
});

/** Turn a code that this page does not know into words. @param {string} code */
const spoken = (code) => code.charAt(0).toUpperCase() + code.slice(1).replaceAll("_", " ");

/** @param {string} code */
export const warningTitle = (code) => WARNINGS[code] ?? spoken(code);

/** @param {string} code */
export const advice = (code) => ADVICE[code] ?? "Try again. If it fails again, report the request id below.";

/** @param {string} name */
export const pointTitle = (name) => OPERATING_POINTS[name] ?? spoken(name);

/**
 * Return a share of 1 in percent. 0 and 100 stand only for exactly 0 and 1.
 *
 * @param {number} share
 * @param {number} [decimals]
 */
export function percent(share, decimals = 1) {
  const least = 10 ** -decimals;
  if (share > 0 && 100 * share < least) return `< ${least.toFixed(decimals)} %`;
  if (share < 1 && 100 * (1 - share) < least) return `> ${(100 - least).toFixed(decimals)} %`;
  return `${(100 * share).toFixed(decimals)} %`;
}

/**
 * Return how many decimals distinguish a probability from its threshold. The label uses the unrounded values.
 *
 * @param {Prediction} prediction
 */
export function tellingDecimals({ probability, threshold }) {
  const apart = [1, 2, 3].find((decimals) => percent(probability, decimals) !== percent(threshold, decimals));
  return probability === threshold ? 1 : (apart ?? 4);
}

/** @param {number | null} years 0.5 for an infant of six months */
export function age(years) {
  if (years === null) return NOT_STATED;
  if (years >= 2) return `${Number(years.toFixed(1))} years`;
  const months = Math.round(12 * years);
  if (months >= 2) return `${months} months`;
  const days = Math.round(365.25 * years);
  return days >= 31 ? "1 month" : `${days} ${days === 1 ? "day" : "days"}`;
}

/** @param {string | null} code */
export const sex = (code) => ({ F: "female", M: "male", O: "other" })[code ?? ""] ?? NOT_STATED;

/** @param {string | null} code */
export const view = (code) => ({ PA: "PA", AP: "AP", LATERAL: "lateral" })[code ?? ""] ?? NOT_STATED;

/** @param {string | null} source */
export function sourceOf(source) {
  if (source === null) return "";
  return source === "request" ? "as you stated" : `file: ${source}`;
}

/** Return age, sex and view in short, as far as they are stated. @param {Prediction["metadata"]} metadata */
export function shortFacts({ age_years, sex: code, view_position }) {
  return [age_years === null ? null : age(age_years), code, view_position].filter(Boolean).join(" · ");
}

/** @param {Prediction["processing"]} processing */
export function pixelSentence(processing) {
  const { format, transfer_syntax, rows, columns, intensity, inverted, orientation, preprocess } = processing;
  const syntax = transfer_syntax && (TRANSFER_SYNTAXES[transfer_syntax] ?? transfer_syntax);
  const file = [format === "dicom" ? "DICOM" : format.toUpperCase(), syntax].filter(Boolean).join(", ");
  const polarity = inverted ? "inverted, because the file stores white as low values (MONOCHROME1)" : "not inverted";
  return `${file}; ${columns} × ${rows} pixels; ${INTENSITIES[intensity] ?? intensity}; ${polarity}; ${ORIENTATIONS[orientation] ?? orientation}; preprocessing version ${preprocess}.`;
}

/**
 * Say on which side of the threshold an answer is, and what it does not prove.
 *
 * @param {Prediction} prediction
 * @param {boolean} isPositive
 */
export function labelSentence({ finding, label, probability, threshold }, isPositive) {
  if (isPositive) return `${probability === threshold ? "At" : "Above"} the threshold: labelled ${label}.`;
  return `Below the threshold: labelled ${label}. This does not rule out ${finding}.`;
}

/**
 * Say how often an operating point was right when it was measured. Return nothing if nothing is known.
 *
 * @param {PointFigures | undefined} figures
 * @param {CurrentModel["labels"]} labels
 * @returns {string[]}
 */
export function pointSentences(figures, labels) {
  const found = rate(figures?.sensitivity), cleared = rate(figures?.specificity);
  return [
    found && `The model found ${found} images with ${labels.positive} (sensitivity${bounds(figures?.sensitivity_ci95)}).`,
    cleared && `The model cleared ${cleared} images without it (specificity${bounds(figures?.specificity_ci95)}).`,
    figures?.proven === false ? "The data set was too small to prove the goal of this operating point." : "",
  ].filter(Boolean);
}

/**
 * Warn if the model may be near chance: its confidence interval of the AUROC reaches down to it.
 *
 * @param {Figures | undefined} figures
 */
export function chanceSentence(figures) {
  const interval = figures?.auroc_ci95;
  if (!figures?.auroc || !interval || interval[0] >= NEAR_CHANCE) return "";
  const [area, low, high] = [figures.auroc, ...interval].map((value) => value.toFixed(2));
  return `On new images this model may be little better than chance (AUROC ${area}, 95 % interval ${low} to ${high}).`;
}

/** @param {number | null | undefined} share */
const rate = (share) => (share === null || share === undefined ? "" : `${perHundred(share)} of 100`);

/** @param {[number, number] | null | undefined} interval */
const bounds = (interval) => (interval ? `, 95 % interval ${perHundred(interval[0])} to ${perHundred(interval[1])}` : "");

/** Near the ends a whole number would hide what matters. @param {number} share */
const perHundred = (share) => String(Number((100 * share).toFixed(share > 0.985 || share < 0.015 ? 1 : 0)));

/**
 * Say how far the views differ, and if the label could depend on that. Each view is within `spread` of the answer.
 *
 * @param {{views: number, spread: number}} tta
 * @param {Prediction} prediction
 */
export function ttaSentence({ views, spread }, { probability, threshold }) {
  const isStable = Math.abs(probability - threshold) > spread;
  const label = isStable ? "All are on one side of the threshold, so the label is stable." : "That may cross the threshold: the label may depend on the view.";
  return `Mean of ${views} views of the image. Their probabilities differ by ${(100 * spread).toFixed(1)} points. ${label}`;
}

/** Explain the field for the prevalence. @param {CurrentModel} model */
export function prevalenceNote({ training_prevalence: training, labels }) {
  if (training === null) return "This model does not state the prevalence in its training images, so it can't be adjusted.";
  return (
    `If empty: ${percent(training)} with ${labels.positive}, as in the training images. Otherwise the odds of the probability and of the threshold ` +
    "are multiplied by the odds of your prevalence, and divided by the odds of theirs. Labels, sensitivity and specificity stay the same."
  );
}

/**
 * Return a threshold for a prevalence, as the service does: its odds times the ratio of the odds of both prevalences.
 *
 * @param {number | undefined} threshold
 * @param {number} prevalence 0 changes nothing
 * @param {number | null} training
 */
export function shifted(threshold, prevalence, training) {
  if (!threshold || !prevalence || !training) return threshold;
  const ratio = ((prevalence / (1 - prevalence)) * (1 - training)) / training;
  return (threshold * ratio) / (threshold * ratio + 1 - threshold);
}

/** Say for which prevalence an answer is. @param {string} prevalence a share as text @param {CurrentModel | null} model */
export function prevalenceSentence(prevalence, model) {
  const training = model?.training_prevalence;
  const from = training ? `, instead of ${percent(training)} in the training images` : "";
  return `Probability and threshold are for a prevalence of ${Number((100 * Number(prevalence)).toPrecision(6))} %${from}.`;
}

/** @param {Prediction["novelty"]} novelty */
export function noveltySentence({ score, limit, is_novel }) {
  const distance = `distance ${score.toFixed(1)}, limit ${limit.toFixed(1)}`;
  if (is_novel) return `Unlike the images that the model learned from (${distance}): do not rely on this answer.`;
  return `Within the range of the images that the model learned from (${distance}).`;
}
